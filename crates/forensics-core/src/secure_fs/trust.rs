//! Whose write access to a folder or a file is trusted.
//!
//! We trust root and our own user, and the members of a group only if that adds no other user:
//!
//! - group 0, which is root's. Containers with an arbitrary uid, as on OpenShift, run with this group
//!   and write to folders of it.
//! - a group that this process has, if `/etc/passwd` and `/etc/group` name no other user in it: the
//!   group of a service's own user, or the `fsGroup` of a pod. Members that only a directory service
//!   such as LDAP knows are not seen.
//!
//! The entries of an access control list are not read. A file or folder with such a list is trusted only
//! if its mode lets neither the group nor everyone write.
//!
//! [`problem`] decides, as a function of plain data.

use std::ops::Range;

use nix::unistd::{Gid, getegid, geteuid, getgroups};

use super::read;
use crate::procfile;

pub(super) const STICKY: u32 = 0o1000;
pub(super) const BY_GROUP: u32 = 0o020;
pub(super) const BY_ALL: u32 = 0o002;

/// Where users from outside of a user namespace appear (`user_namespaces(7)`).
const OVERFLOW_UID: u32 = 65534;

/// This process.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Us {
    pub(super) uid: u32,
    pub(super) groups: Vec<u32>,
    /// Whether root's files may appear as those of [`OVERFLOW_UID`], because no user here is root outside.
    pub(super) root_may_be_unmapped: bool,
    /// The content of `/etc/passwd` and `/etc/group`.
    pub(super) passwd: String,
    pub(super) group: String,
}

impl Us {
    pub(super) fn now() -> Self {
        let text = |path: &str| {
            let bytes = read(path.as_ref(), 1 << 20).unwrap_or_default();
            String::from_utf8_lossy(&bytes).into_owned()
        };
        let more = getgroups().unwrap_or_default();
        let map = procfile::text("/proc/self/uid_map").unwrap_or_default();
        Self {
            uid: geteuid().as_raw(),
            groups: [getegid()].into_iter().chain(more).map(Gid::as_raw).collect(),
            root_may_be_unmapped: root_may_be_unmapped(&map),
            passwd: text("/etc/passwd"),
            group: text("/etc/group"),
        }
    }

    /// Whether a folder or file of this user can be used: no other user can replace it.
    fn trusts_owner(&self, owner: u32) -> bool {
        // Root trusts only its own files. Other users trust those of root as well, who may be unmapped.
        owner == self.uid || (self.uid != 0 && (owner == 0 || self.may_be_root(owner)))
    }

    fn may_be_root(&self, owner: u32) -> bool {
        owner == OVERFLOW_UID && self.root_may_be_unmapped
    }

    fn trusts_group(&self, gid: u32) -> bool {
        gid == 0 || (self.groups.contains(&gid) && !self.has_other_members(gid))
    }

    /// Whether a user other than us and root is in the group.
    fn has_other_members(&self, gid: u32) -> bool {
        let gid = gid.to_string();
        let (ours, mut names) = (self.uid.to_string(), vec!["root"]);
        for line in self.passwd.lines() {
            let [name, _, uid, primary, ..] = line.split(':').collect::<Vec<_>>()[..] else {
                continue;
            };
            if uid == ours || uid == "0" {
                names.push(name);
            } else if primary == gid {
                return true;
            }
        }
        self.group.lines().any(|line| match line.split(':').collect::<Vec<_>>()[..] {
            [_, _, id, members, ..] if id == gid => members
                .split(',')
                .any(|name| !name.trim().is_empty() && !names.contains(&name.trim())),
            _ => false,
        })
    }
}

/// Whether the map of a user namespace (user_namespaces(7)) contains neither [`OVERFLOW_UID`] nor, as with
/// `PrivateUsers=yes` of systemd, the root outside.
fn root_may_be_unmapped(map: &str) -> bool {
    // From one uid inside, and one outside, so many uids are mapped.
    let mut ranges = map.lines().filter_map(|line| {
        let numbers: Vec<u64> = line.split_whitespace().filter_map(|it| it.parse().ok()).collect();
        let [inside, outside, count] = numbers[..] else { return None };
        Some((inside..inside.saturating_add(count), outside..outside.saturating_add(count)))
    });
    let is_mapped = |(inside, outside): (Range<u64>, Range<u64>)| {
        inside.contains(&u64::from(OVERFLOW_UID)) || outside.contains(&0)
    };
    !map.is_empty() && !ranges.any(is_mapped)
}

/// What is known about a folder or a regular file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Facts {
    pub(super) is_file: bool,
    pub(super) owner: u32,
    pub(super) group: u32,
    pub(super) mode: u32,
    pub(super) hard_links: u64,
    /// Whether it has an access control list. Its group bits then limit the list's entries.
    pub(super) has_acl: bool,
}

impl Facts {
    fn is_writable_by_others(&self, us: &Us) -> bool {
        let by_group = self.has_acl || !us.trusts_group(self.group);
        self.mode & BY_ALL != 0 || (self.mode & BY_GROUP != 0 && by_group)
    }
}

/// Why a folder or file is not used, and a command for root that makes it usable. It lacks the path.
/// `None` if it can be used.
pub(super) fn problem(facts: &Facts, us: &Us) -> Option<(String, Vec<String>)> {
    let Facts { is_file, owner, mode, hard_links, .. } = *facts;
    let is_open = (is_file || mode & STICKY == 0) && facts.is_writable_by_others(us);
    let text = if !us.trusts_owner(owner) {
        let us = if us.uid == 0 { "root".to_owned() } else { format!("uid {} or root", us.uid) };
        format!("belongs to uid {owner}, not to {us}")
    } else if is_file && hard_links > 1 {
        // Another user may have linked a file that we must not write to.
        return Some((
            format!("has {hard_links} hard links, so it may be another file"),
            Vec::new(),
        ));
    } else if is_open {
        let what = if is_file { "write to it" } else { "replace files" };
        format!("(mode {mode:04o}) lets other users {what}")
    } else {
        return None;
    };
    let mut commands = Vec::new();
    // With `go-w`, only its owner can write to it.
    if owner != us.uid {
        commands.push(format!("chown {}", us.uid));
    }
    if is_open {
        commands.push("chmod go-w".to_owned());
    }
    Some((text, commands))
}

/// Whether we follow a symbolic link, because only root or our user can have put it there. `link` has
/// its owner and its hard links, `folder` the owner and the mode of the folder that it is in. `is_held`:
/// it cannot be replaced between this check and its use.
pub(super) fn follows_link(us: &Us, link: (u32, u64), folder: (u32, u32), is_held: bool) -> bool {
    let is_root_or_us = |owner: u32| owner == 0 || owner == us.uid;
    let is_closed = folder.1 & (BY_GROUP | BY_ALL) == 0;
    // Another user may have made a hard link to one of root's links.
    let is_ours = is_root_or_us(link.0) && link.1 == 1;
    let keeps_links = is_root_or_us(folder.0) && (is_closed || folder.1 & STICKY != 0);
    // In a user namespace, root's links can appear to belong to another user, as those of others do.
    let may_be_roots = us.may_be_root(link.0) && us.trusts_owner(folder.0) && is_closed;
    (is_ours && (is_held || keeps_links)) || may_be_roots
}

#[cfg(test)]
mod tests {
    use super::*;

    const PASSWD: &str = "root:x:0:0::/:/bin/sh\noperator:x:11:0::/:/bin/sh\nalice:x:1000:1000::/:\n\
        gw:x:999:999::/:\nbroken\nwww:x:33:33::/:\n";
    const GROUP: &str = "root:x:0:\nstaff:x:50:gw,alice\ngw:x:999:\nlogs:x:70: gw,root\n\
        shared:x:71:gw,,bob\nbroken\n";

    fn us(uid: u32, groups: &[u32]) -> Us {
        let (passwd, group) = (PASSWD.to_owned(), GROUP.to_owned());
        Us { uid, groups: groups.to_vec(), root_may_be_unmapped: false, passwd, group }
    }

    fn folder(owner: u32, group: u32, mode: u32) -> Facts {
        Facts { is_file: false, owner, group, mode, hard_links: 2, has_acl: false }
    }

    /// Who we are, by uid and groups. Then the folder: owner, group and mode. Then the commands that
    /// make it usable; `None` if it is usable.
    #[test]
    fn only_root_our_own_user_and_a_group_without_other_users_are_trusted() {
        type Case<'a> = (u32, &'a [u32], [u32; 3], Option<&'a str>);
        const POD: u32 = 1_000_680_000;
        let cases: [Case<'_>; 38] = [
            // As root: only root's, and writable at most by root's group.
            (0, &[0], [0, 0, 0o700], None),
            (0, &[0], [0, 0, 0o755], None),
            (0, &[0], [0, 0, 0o775], None),
            (0, &[0], [0, 50, 0o755], None),
            (0, &[0], [0, 50, 0o775], Some("chmod go-w")),
            (0, &[0], [0, 0, 0o777], Some("chmod go-w")),
            (0, &[0], [0, 0, 0o1777], None),
            (0, &[0], [0, 50, 0o1770], None),
            (0, &[0], [999, 999, 0o700], Some("chown 0")),
            (0, &[0], [999, 999, 0o775], Some("chown 0; chmod go-w")),
            (0, &[0], [999, 0, 0o1777], Some("chown 0")),
            // A pod that runs as root, with an fsGroup.
            (0, &[0, 2000], [0, 2000, 0o2775], None),
            (0, &[0, 2000], [0, 2000, 0o2777], Some("chmod go-w")),
            // A service's own user.
            (999, &[999], [999, 999, 0o700], None),
            (999, &[999], [999, 999, 0o775], None),
            (999, &[999], [0, 999, 0o775], None),
            (999, &[999], [0, 0, 0o755], None),
            (999, &[999], [999, 999, 0o777], Some("chmod go-w")),
            (999, &[999], [0, 0, 0o777], Some("chown 999; chmod go-w")),
            (999, &[999], [0, 0, 0o1777], None),
            // Groups with another user: alice, www by its primary group, bob without an account.
            (999, &[999, 50], [999, 50, 0o2775], Some("chmod go-w")),
            (999, &[999, 33], [0, 33, 0o775], Some("chown 999; chmod go-w")),
            (999, &[999, 71], [999, 71, 0o770], Some("chmod go-w")),
            // Only we and root are in this one.
            (999, &[999, 70], [0, 70, 0o2775], None),
            // A group that we do not have: its members are not known.
            (999, &[999], [999, 4711, 0o770], Some("chmod go-w")),
            // Another user owns it.
            (999, &[999], [1000, 999, 0o755], Some("chown 999")),
            (999, &[999, 50], [1000, 50, 0o775], Some("chown 999; chmod go-w")),
            (999, &[999], [1000, 1000, 0o1777], Some("chown 999")),
            (999, &[999], [65534, 65534, 0o755], Some("chown 999")),
            // OpenShift: an arbitrary uid without an account, group 0, and an fsGroup.
            (POD, &[0, POD], [0, 0, 0o775], None),
            (POD, &[0, POD], [0, 0, 0o2775], None),
            (POD, &[0, POD], [POD, 0, 0o770], None),
            (POD, &[0, POD], [0, POD, 0o2775], None),
            (POD, &[0, POD], [POD, POD, 0o2770], None),
            (POD, &[0, POD], [0, 0, 0o777], Some("chown 1000680000; chmod go-w")),
            (POD, &[0, POD], [0, POD, 0o2777], Some("chown 1000680000; chmod go-w")),
            (POD, &[0, POD], [0, 0, 0o1777], None),
            (POD, &[0, POD], [1001, 0, 0o775], Some("chown 1000680000")),
        ];
        for (uid, groups, [owner, group, mode], expected) in cases {
            let found = problem(&folder(owner, group, mode), &us(uid, groups));
            let commands = found.map(|(_, commands)| commands.join("; "));
            let case = format!("uid {uid} {groups:?}, folder {owner}:{group} {mode:o}");
            assert_eq!(commands.as_deref(), expected, "{case}");
        }
    }

    /// After the commands, the folder or file is usable: whatever it and we are.
    #[test]
    fn the_commands_make_a_folder_and_a_file_usable() {
        let ids = [0, 33, 50, 999, 1000, 65534];
        for uid in ids {
            for (owner, group) in ids.iter().flat_map(|&o| ids.map(|g| (o, g))) {
                for mode in (0..=0o7)
                    .flat_map(|bits| [bits << 3, bits])
                    .flat_map(|m| [m | 0o700, m | 0o1700, m | 0o2700])
                {
                    for is_file in [false, true] {
                        let us = us(uid, &[uid, 50]);
                        let facts = Facts { is_file, hard_links: 1, ..folder(owner, group, mode) };
                        let Some((_, commands)) = problem(&facts, &us) else { continue };
                        let mut after = facts;
                        for command in commands {
                            match command.split_once(' ').unwrap() {
                                ("chown", uid) => after.owner = uid.parse().unwrap(),
                                ("chmod", "go-w") => after.mode &= !0o022,
                                other => panic!("{other:?}"),
                            }
                        }
                        assert_eq!(problem(&after, &us), None, "{facts:?} {us:?}");
                    }
                }
            }
        }
    }

    #[test]
    fn a_file_is_never_protected_by_a_sticky_bit_and_an_access_control_list_counts() {
        let us = us(999, &[999]);
        let file = |mode, hard_links| Facts { is_file: true, hard_links, ..folder(999, 999, mode) };
        assert_eq!(problem(&file(0o660, 1), &us), None);
        assert!(problem(&file(0o1666, 1), &us).unwrap().0.contains("lets other users write to it"));
        assert!(problem(&file(0o600, 2), &us).unwrap().0.contains("has 2 hard links"));
        let listed = |mode| Facts { has_acl: true, ..folder(999, 999, mode) };
        assert_eq!(problem(&listed(0o750), &us), None);
        assert!(problem(&listed(0o770), &us).unwrap().0.contains("replace files"));
    }

    /// Who we are; the link's owner and hard links; the owner and mode of its folder.
    #[test]
    fn a_link_is_followed_if_only_root_or_we_can_have_made_it() {
        type Case = (u32, (u32, u64), (u32, u32), bool);
        let cases: [Case; 15] = [
            // `/var/run`, and `/var/lib/NAME` under `DynamicUser=`.
            (0, (0, 1), (0, 0o755), true),
            (61184, (0, 1), (0, 0o755), true),
            (0, (0, 1), (0, 0o1777), true),
            (0, (0, 1), (0, 0o777), true),
            (999, (999, 1), (0, 0o1777), true),
            (999, (999, 1), (1000, 0o755), true),
            // A hard link to a link of root's.
            (0, (0, 2), (0, 0o1777), false),
            (999, (0, 2), (0, 0o1777), false),
            // Another user's link.
            (0, (999, 1), (0, 0o755), false),
            (0, (999, 1), (999, 0o700), false),
            (999, (1000, 1), (0, 0o1777), false),
            (999, (1000, 1), (1000, 0o775), false),
            (999, (1000, 1), (1000, 0o755), false),
            (999, (1000, 1), (0, 0o755), false),
            (999, (65534, 1), (65534, 0o755), false),
        ];
        for (uid, link, folder, expected) in cases {
            let followed = follows_link(&us(uid, &[]), link, folder, true);
            assert_eq!(followed, expected, "{uid} {link:?} {folder:?}");
        }
        // Only the owner of the folder can have made it; it may be root outside of our user namespace.
        let inside = |uid| Us { root_may_be_unmapped: true, ..us(uid, &[]) };
        for (uid, link, folder, expected) in [
            (999, 65534, (65534, 0o755), true),
            (999, 65534, (0, 0o755), true),
            (999, 65534, (1000, 0o755), false),
            (999, 65534, (65534, 0o1777), false),
            (999, 1000, (65534, 0o755), false),
            (0, 65534, (65534, 0o755), false),
        ] {
            let followed = follows_link(&inside(uid), (link, 1), folder, true);
            assert_eq!(followed, expected, "{uid} {link} {folder:?}");
        }
        // Where links cannot be held, others must not be able to replace them.
        for (folder, expected) in [((0, 0o755), true), ((0, 0o1777), true), ((0, 0o777), false)] {
            assert_eq!(follows_link(&us(0, &[]), (0, 1), folder, false), expected, "{folder:?}");
        }
    }

    #[test]
    fn roots_files_can_appear_as_those_of_the_overflow_uid_in_a_user_namespace() {
        for (map, expected) in [
            ("         0          0 4294967295\n", false),
            ("0 1000 1\n1 100000 65536\n", false),
            // `PrivateUsers=yes`: root is itself, and all others are the overflow uid.
            ("0 0 1\n61184 61184 1\n", false),
            // The same in a user's unit, and a container without many uids.
            ("1777 1777 1\n", true),
            ("0 1000 1\n", true),
            ("", false),
        ] {
            assert_eq!(root_may_be_unmapped(map), expected, "{map}");
        }
        let inside = Us { root_may_be_unmapped: true, ..us(999, &[999]) };
        assert_eq!(problem(&folder(OVERFLOW_UID, OVERFLOW_UID, 0o755), &inside), None);
        let root = Us { root_may_be_unmapped: true, ..us(0, &[0]) };
        assert!(problem(&folder(OVERFLOW_UID, OVERFLOW_UID, 0o755), &root).is_some());
    }
}
