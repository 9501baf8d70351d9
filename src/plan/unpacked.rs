//! The same launch from an unpacked tree.

use std::path::Path;

use super::{LaunchPlan, Op};

impl LaunchPlan {
    /// The plan with the tree in `directory` as the root, in place of the image's file.
    #[must_use]
    pub fn from_directory(mut self, directory: &Path) -> Self {
        for op in &mut self.ops {
            if let Op::MountImage { mount_points, upper, .. } = op {
                *op = Op::MountDirectory {
                    directory: directory.to_path_buf(),
                    mount_points: std::mem::take(mount_points),
                    upper: upper.take(),
                };
            }
        }
        self
    }
}
