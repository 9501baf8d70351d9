//! Configuration files on a disk.

use slipway::config::{ConfigError, ConfigFile, Environment, Settings, Sources};

fn load(files: &[ConfigFile]) -> Result<Settings, ConfigError> {
    let env: Environment = [("HOME".into(), "/home/u".into())].into();
    Settings::load(&Sources { files, env: &env, flags: &[] })
}

#[test]
fn files_that_are_not_there_are_skipped_unless_named() {
    let directory = tempfile::tempdir().unwrap();
    let (first, second) = (directory.path().join("a.toml"), directory.path().join("b.toml"));
    let none = load(&[ConfigFile::Optional(first.clone())]).unwrap();
    assert_eq!(none.convert.threads.value, 0);

    let error = load(&[ConfigFile::Required(first.clone())]).unwrap_err();
    assert!(error.to_string().starts_with(&format!("cannot read `{}`: ", first.display())), "{error}");

    std::fs::write(&first, "[convert]\nthreads = 1\nmax_entries = 10\n").unwrap();
    std::fs::write(&second, "convert.threads = 2\n").unwrap();
    let files = [ConfigFile::Optional(first), ConfigFile::Required(second.clone())];
    let both = load(&files).unwrap();
    assert_eq!((both.convert.threads.value, both.convert.max_entries.value), (2, 10));
    assert_eq!(both.convert.threads.origin.to_string(), format!("{}:1", second.display()));

    // A directory in its place, or what is no text, is not skipped.
    let error = load(&[ConfigFile::Optional(directory.path().into())]).unwrap_err();
    assert!(matches!(error, ConfigError::Read { .. }), "{error}");
    std::fs::write(&second, b"\xff\xfe").unwrap();
    assert!(matches!(load(&files), Err(ConfigError::Read { .. })));
}
