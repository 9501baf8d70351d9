//! stub
#![allow(missing_docs, missing_debug_implementations)]
use crate::base::{Origin, Sourced};
use std::path::PathBuf;
macro_rules! s {
    ($e:expr) => {
        Sourced { value: $e, origin: Origin::Default }
    };
}
#[derive(Debug)]
pub struct Settings {
    pub store: St,
    pub run: Ru,
    pub gpu: Gp,
    pub convert: Co,
    pub fuse: Fu,
}
#[derive(Debug)]
pub struct St {
    pub dir: Sourced<PathBuf>,
}
#[derive(Debug)]
pub struct Ru {
    pub binds: Sourced<Vec<String>>,
    pub mount_home: Sourced<bool>,
    pub mount_tmp: Sourced<bool>,
}
#[derive(Debug)]
pub struct Gp {
    pub default: Sourced<String>,
    pub nvml_timeout_seconds: Sourced<u64>,
}
#[derive(Debug)]
pub struct Co {
    pub threads: usize,
}
#[derive(Debug)]
pub struct Fu {
    pub threads: usize,
}
impl Settings {
    pub fn stub() -> Self {
        Settings {
            store: St { dir: s!("/tmp/slipstore".into()) },
            run: Ru { binds: s!(vec![]), mount_home: s!(true), mount_tmp: s!(true) },
            gpu: Gp { default: s!("job".into()), nvml_timeout_seconds: s!(5) },
            convert: Co { threads: 2 },
            fuse: Fu { threads: 2 },
        }
    }
    pub fn show(&self) -> String {
        String::new()
    }
}
