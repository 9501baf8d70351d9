//! All tests that need more than one module or a real kernel, in one binary.

#![expect(clippy::disallowed_methods, reason = "tests touch the world")]
#![expect(clippy::unwrap_used, clippy::print_stdout, reason = "a panic fails the test, and a skip is told")]

#[macro_use]
mod support;

mod apptainer_ways;
mod archives;
mod bundle;
mod cdi;
mod config;
mod container_files;
mod control_groups;
mod convert;
mod convert_cli;
mod docker_ways;
mod errors_cli;
mod faults;
mod floors;
mod foreign_image;
mod fuse_follow;
mod fuse_mount;
mod fuse_standby;
mod fuse_torture;
mod gpu;
mod gpu_amd;
mod gpu_cli;
mod gpu_compat;
mod gpu_files;
mod gpu_golden;
mod gpu_intel;
mod gpu_mig;
mod gpu_nvml;
mod gpu_record;
mod gpu_roots;
mod gpu_slurm;
mod gpu_stage;
mod gpu_topology;
mod gpu_words;
mod image_verbs;
mod keeper;
mod keeper_slurm;
mod launch_hygiene;
mod layer_cases;
mod ldcache;
mod loader_cache;
mod merge;
mod mpi;
mod optimize;
mod other_images;
mod processes;
mod prune;
mod quickstart_parts;
mod registry;
mod registry_login;
mod registry_parts;
mod registry_push;
mod registry_ways;
mod run_cli;
mod run_docker;
mod run_flags;
mod runtime;
mod sandboxing;
mod sbatch;
mod sif;
mod slurm;
mod spank;
mod squashfs_read;
mod squashfs_write;
mod store;
mod tar_oracle;
mod terminals;
mod unpack;
mod visits;
mod volumes;
