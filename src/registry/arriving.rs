//! An image on its way into the store: everything is known of it, and its layers come one after the other.

use std::collections::HashSet;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};

use crate::base::Digest;
use crate::oci::{Descriptor, Platform};
use crate::store::{Layer, Store};

/// An image whose layers are being fetched, newest first, so that work on it can begin before the last one is there.
#[derive(Debug)]
pub struct Arriving<'a> {
    /// Digest of its manifest.
    pub manifest_digest: Digest,
    /// Its config, byte for byte.
    pub config: &'a [u8],
    /// What the config says that the image is for.
    pub platform: Platform,
    /// Layers with their diff ids, base first.
    layers: Vec<(&'a Descriptor, Digest)>,
    store: &'a Store,
    state: Mutex<State>,
    wake: Condvar,
}

#[derive(Debug, Default)]
struct State {
    stored: HashSet<Digest>,
    /// Something failed: no further layer comes.
    is_over: bool,
}

impl<'a> Arriving<'a> {
    pub(super) fn new(
        manifest_digest: Digest,
        config: &'a [u8],
        platform: Platform,
        layers: Vec<(&'a Descriptor, Digest)>,
        store: &'a Store,
    ) -> Self {
        let (state, wake) = (Mutex::default(), Condvar::new());
        Self { manifest_digest, config, platform, layers, store, state, wake }
    }

    /// How many layers it has, repeated ones included.
    #[must_use]
    pub fn layer_count(&self) -> usize {
        self.layers.len()
    }

    /// The layer of that index, base first, verified; waits until it is there. `None` if it will not come, for a reason
    /// that the pull ends with.
    #[must_use]
    pub fn layer(&self, index: usize) -> Option<Layer> {
        let (descriptor, diff_id) = self.layers.get(index)?;
        let mut state = self.lock();
        while !state.stored.contains(&descriptor.digest) {
            if state.is_over {
                return None;
            }
            state = self.wake.wait(state).unwrap_or_else(PoisonError::into_inner);
        }
        drop(state);
        let file = self.store.open_blob(&descriptor.digest).ok().flatten()?;
        Some(Layer {
            digest: Some(descriptor.digest),
            diff_id: *diff_id,
            file: Arc::new(file),
            offset_bytes: 0,
            size_bytes: descriptor.size_bytes,
        })
    }

    pub(super) fn tell_stored(&self, digest: Digest) {
        self.lock().stored.insert(digest);
        self.wake.notify_all();
    }

    pub(super) fn tell_over(&self) {
        self.lock().is_over = true;
        self.wake.notify_all();
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
