//! The id table: every uid and gid once, in the order of first use; inodes hold its indices.

use std::collections::HashMap;

use super::error::WriteError;

/// Most ids: the superblock counts them in 16 bits.
pub(super) const MAX_IDS: usize = u16::MAX as usize;

/// Owners and groups seen so far.
#[derive(Debug, Default)]
pub(super) struct IdTable {
    ids: Vec<u32>,
    indices: HashMap<u32, u16>,
}

impl IdTable {
    /// The index of a uid or gid.
    pub(super) fn index_of(&mut self, id: u32) -> Result<u16, WriteError> {
        if let Some(&index) = self.indices.get(&id) {
            return Ok(index);
        }
        let index = u16::try_from(self.ids.len())
            .ok()
            .filter(|&index| usize::from(index) < MAX_IDS)
            .ok_or(WriteError::TooManyIds { limit: MAX_IDS })?;
        self.ids.push(id);
        self.indices.insert(id, index);
        Ok(index)
    }

    /// All ids by index.
    pub(super) fn ids(&self) -> &[u32] {
        &self.ids
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_each_id_once_and_not_more_than_the_superblock_counts() {
        let mut table = IdTable::default();
        assert_eq!(table.index_of(1000).unwrap(), 0);
        assert_eq!(table.index_of(u32::MAX).unwrap(), 1);
        assert_eq!(table.index_of(1000).unwrap(), 0);
        for id in 2..65535 {
            table.index_of(100_000 + id).unwrap();
        }
        assert_eq!(table.ids().len(), 65535);
        assert_eq!(table.index_of(u32::MAX).unwrap(), 1);
        assert!(matches!(table.index_of(1), Err(WriteError::TooManyIds { limit: 65535 })));
    }
}
