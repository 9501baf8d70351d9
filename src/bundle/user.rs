//! Who the workload is inside: one uid and one gid, by the image's own files where a name is given.

use std::path::PathBuf;

use super::{BundleError, Caller, Identity, ImageFiles};

/// The one user that is mapped.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct User {
    /// User id inside.
    pub(super) uid: u32,
    /// Group id inside.
    pub(super) gid: u32,
    /// Its name, as far as it is known.
    pub(super) name: String,
    /// Its home by the image's `/etc/passwd`; `/` where that does not list it.
    pub(super) home: PathBuf,
    /// True if the image's `/etc/passwd` lists it.
    pub(super) is_listed: bool,
}

/// Reads `user[:group]`, each by name or number, as docker does: names and homes are the image's; a number need not be
/// listed, and then its group is 0.
pub(super) fn resolve(
    identity: &Identity,
    of_image: &str,
    files: &ImageFiles,
    caller: &Caller,
) -> Result<User, BundleError> {
    let text = match identity {
        Identity::Caller => {
            return Ok(User {
                uid: caller.uid,
                gid: caller.gid,
                name: caller.name.clone(),
                home: caller.home.clone().unwrap_or_else(|| "/".into()),
                is_listed: true,
            });
        }
        Identity::Root => "0:0",
        Identity::Image if of_image.trim().is_empty() => "0:0",
        Identity::Image => of_image.trim(),
        Identity::Named(text) => text,
    };
    let (user, group) = text.split_once(':').map_or((text, None), |(user, group)| (user, Some(group)));
    let missing = |what, name: &str| BundleError::NoSuchUser {
        asked: text.to_owned(),
        what,
        name: name.to_owned(),
        of_image: *identity == Identity::Image,
    };
    let passwd = files.passwd.as_deref().unwrap_or_default();
    let line = find(passwd, user);
    let number = |field: usize| line.as_ref().and_then(|line| line.get(field)?.parse::<u32>().ok());
    let uid = number(2).or_else(|| user.parse().ok()).ok_or_else(|| missing("user", user))?;
    let gid = match group.filter(|group| !group.is_empty()) {
        None => number(3).unwrap_or(0),
        Some(group) => {
            let listed = find(files.group.as_deref().unwrap_or_default(), group);
            let listed = listed.and_then(|line| line.get(2)?.parse().ok());
            listed.or_else(|| group.parse().ok()).ok_or_else(|| missing("group", group))?
        }
    };
    let word = |field: usize| {
        line.as_ref().and_then(|line| line.get(field)).filter(|word| !word.is_empty()).cloned()
    };
    let root_home = if uid == 0 { "/root" } else { "/" };
    Ok(User {
        uid,
        gid,
        name: word(0).unwrap_or_else(|| if uid == 0 { "root".into() } else { uid.to_string() }),
        home: word(5).unwrap_or_else(|| root_home.into()).into(),
        is_listed: line.is_some(),
    })
}

/// The fields of the line whose name is `word`, else of the one whose id it is.
fn find(text: &[u8], word: &str) -> Option<Vec<String>> {
    let rows = || {
        text.split(|byte| *byte == b'\n').map(|line| {
            line.split(|byte| *byte == b':').map(|field| String::from_utf8_lossy(field).into_owned())
        })
    };
    let by = |place: usize| {
        rows()
            .map(Iterator::collect::<Vec<_>>)
            .find(|fields| fields.get(place).is_some_and(|field| field == word))
    };
    if word.is_empty() { None } else { by(0).or_else(|| by(2)) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeMap;

    #[test]
    fn users_are_the_images() {
        let caller = Caller {
            uid: 1000,
            gid: 100,
            name: "ada".into(),
            group: "users".into(),
            home: None,
            cwd: None,
            env: BTreeMap::new(),
            host_has: Vec::new(),
        };
        let files = ImageFiles {
            passwd: Some(
                b"root:x:0:0:root:/root:/bin/sh\napp:x:1500:1600:App:/srv/app:/bin/sh\n1500:x:7:8::/seven:\n"
                    .to_vec(),
            ),
            group: Some(b"root:x:0:\nvideo:x:44:app\n".to_vec()),
        };
        let check = |identity: Identity, of_image: &str, expected: Result<(u32, u32, &str, &str), &str>| {
            let found = resolve(&identity, of_image, &files, &caller).map_err(|error| error.to_string());
            let found = found
                .as_ref()
                .map(|user| (user.uid, user.gid, user.name.as_str(), user.home.to_str().unwrap()));
            assert_eq!(found.map_err(String::as_str), expected, "{identity:?} {of_image}");
        };
        let named = |text: &str| Identity::Named(text.into());
        check(Identity::Caller, "app", Ok((1000, 100, "ada", "/")));
        check(Identity::Root, "app", Ok((0, 0, "root", "/root")));
        check(Identity::Image, "app", Ok((1500, 1600, "app", "/srv/app")));
        check(Identity::Image, "", Ok((0, 0, "root", "/root")));
        check(Identity::Image, "app:video", Ok((1500, 44, "app", "/srv/app")));
        check(named("app:0"), "", Ok((1500, 0, "app", "/srv/app")));
        // A name that looks like a number is a name first.
        check(named("1500"), "", Ok((7, 8, "1500", "/seven")));
        check(named("1600"), "", Ok((1600, 0, "1600", "/")));
        check(named("1600:1700"), "", Ok((1600, 1700, "1600", "/")));
        check(named("eve"), "", Err("cannot be user `eve`: the image's /etc/passwd has no user `eve`"));
        check(named("0:eve"), "", Err("cannot be user `0:eve`: the image's /etc/group has no group `eve`"));
        check(
            Identity::Image,
            "eve",
            Err("the image wants to run as `eve`, but its /etc/passwd has no user `eve`"),
        );
        check(named(""), "", Err("cannot be user ``: the image's /etc/passwd has no user ``"));
    }
}
