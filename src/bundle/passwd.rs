//! `/etc/passwd` and `/etc/group` for the caller: the image's own lines, and one that names who runs.

use std::path::PathBuf;

use crate::grants::FileGrant;

use crate::config::Profile;

use super::user::User;
use super::{Caller, Identity, ImageFiles, Request};

/// Both files, to be bound over the image's, where it does not have what it needs. The docker profile takes the image's
/// as they are.
pub(super) fn files(image: &ImageFiles, caller: &Caller, request: &Request, user: &User) -> Vec<FileGrant> {
    match request.identity {
        _ if request.profile == Profile::Docker => return Vec::new(),
        Identity::Root => return root_files(image),
        Identity::Image | Identity::Named(_) if user.uid == 0 => return root_files(image),
        Identity::Image | Identity::Named(_) if user.is_listed => return Vec::new(),
        Identity::Image | Identity::Named(_) => return vec![named_file(image, user)],
        Identity::Caller => {}
    }
    let home = request.home.as_ref().map(|home| home.target.clone());
    let home = home.or_else(|| caller.home.clone()).unwrap_or_else(|| PathBuf::from("/"));
    let passwd = with_user(image.passwd.as_deref().unwrap_or_default(), caller, &home.to_string_lossy());
    let group = with_group(image.group.as_deref().unwrap_or_default(), caller);
    [("/etc/passwd", passwd), ("/etc/group", group)]
        .map(|(target, content)| FileGrant { target: target.into(), content, mode: 0o644 })
        .into()
}

/// Root needs a file only where the image does not name it.
fn root_files(image: &ImageFiles) -> Vec<FileGrant> {
    let files = [
        ("/etc/passwd", image.passwd.as_deref(), "root:x:0:0:root:/root:/bin/sh\n"),
        ("/etc/group", image.group.as_deref(), "root:x:0:\n"),
    ];
    let lacks = |text: &[u8]| !lines(text).any(|line| line.split(|byte| *byte == b':').nth(2) == Some(b"0"));
    files
        .into_iter()
        .map(|(target, text, line)| (target, text.unwrap_or_default(), line))
        .filter(|(_, text, _)| lacks(text))
        .map(|(target, text, line)| FileGrant {
            target: target.into(),
            content: [line.as_bytes(), text].concat(),
            mode: 0o644,
        })
        .collect()
}

/// A user that the image does not list.
fn named_file(image: &ImageFiles, user: &User) -> FileGrant {
    let mut content = Vec::new();
    for line in lines(image.passwd.as_deref().unwrap_or_default()) {
        content.extend_from_slice(line);
        content.push(b'\n');
    }
    let User { uid, gid, name, home, .. } = user;
    content.extend_from_slice(format!("{name}:x:{uid}:{gid}::{}:/bin/sh\n", home.display()).as_bytes());
    FileGrant { target: "/etc/passwd".into(), content, mode: 0o644 }
}

/// If the image knows the uid, its line gets the caller's name and home and keeps its shell; else a line is added.
fn with_user(text: &[u8], caller: &Caller, home: &str) -> Vec<u8> {
    let mut shell = b"/bin/sh".to_vec();
    let mut out = Vec::with_capacity(text.len() + 128);
    for line in lines(text) {
        let fields: Vec<&[u8]> = line.split(|byte| *byte == b':').collect();
        if fields.get(2).is_some_and(|uid| *uid == caller.uid.to_string().as_bytes()) {
            if let Some(theirs) = fields.get(6).filter(|theirs| !theirs.is_empty()) {
                shell = theirs.to_vec();
            }
            continue;
        }
        out.extend_from_slice(line);
        out.push(b'\n');
    }
    let safe = |word: &str| word.replace([':', '\n'], "_");
    let head = format!("{}:x:{}:{}::{}:", safe(&caller.name), caller.uid, caller.gid, safe(home));
    out.extend_from_slice(head.as_bytes());
    out.extend_from_slice(&shell);
    out.push(b'\n');
    out
}

fn with_group(text: &[u8], caller: &Caller) -> Vec<u8> {
    let gid = caller.gid.to_string();
    let mut out = Vec::with_capacity(text.len() + 64);
    let mut known = false;
    for line in lines(text) {
        known |= line.split(|byte| *byte == b':').nth(2) == Some(gid.as_bytes());
        out.extend_from_slice(line);
        out.push(b'\n');
    }
    if !known {
        out.extend_from_slice(format!("{}:x:{gid}:\n", caller.group.replace([':', '\n'], "_")).as_bytes());
    }
    out
}

fn lines(text: &[u8]) -> impl Iterator<Item = &[u8]> {
    text.split(|byte| *byte == b'\n').filter(|line| !line.is_empty())
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeMap;
    use std::path::Path;

    #[test]
    fn names_the_caller_and_keeps_the_rest() {
        let caller = Caller {
            uid: 1000,
            gid: 100,
            name: "ada".into(),
            group: "users".into(),
            home: Some("/home/ada".into()),
            cwd: None,
            env: BTreeMap::new(),
            host_has: Vec::new(),
        };
        let image = ImageFiles {
            passwd: Some(b"root:x:0:0::/root:/bin/bash\nubuntu:x:1000:1000::/home/ubuntu:/bin/zsh".to_vec()),
            group: Some(b"root:x:0:\nusers:x:100:\n".to_vec()),
        };
        let files = |image: &ImageFiles, identity: Identity| {
            let user = super::super::user::resolve(&identity, "", image, &caller).unwrap();
            super::files(image, &caller, &Request { identity, ..Request::default() }, &user)
        };
        let made = files(&image, Identity::Caller);
        assert_eq!(
            String::from_utf8_lossy(&made[0].content),
            "root:x:0:0::/root:/bin/bash\nada:x:1000:100::/home/ada:/bin/zsh\n"
        );
        assert_eq!(String::from_utf8_lossy(&made[1].content), "root:x:0:\nusers:x:100:\n");
        let made = files(&ImageFiles::default(), Identity::Caller);
        assert_eq!(String::from_utf8_lossy(&made[0].content), "ada:x:1000:100::/home/ada:/bin/sh\n");
        assert_eq!(String::from_utf8_lossy(&made[1].content), "users:x:100:\n");
        assert!(files(&image, Identity::Root).iter().all(|file| file.target != Path::new("/etc/passwd")));
        let made = files(&ImageFiles::default(), Identity::Root);
        assert_eq!(String::from_utf8_lossy(&made[0].content), "root:x:0:0:root:/root:/bin/sh\n");
        assert!(files(&image, Identity::Named("ubuntu".into())).is_empty());
        let made = files(&image, Identity::Named("7:8".into()));
        assert!(String::from_utf8_lossy(&made[0].content).ends_with(":/bin/zsh\n7:x:7:8::/:/bin/sh\n"));
    }
}
