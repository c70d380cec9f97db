//! How much memory this process may still take.
//!
//! Responsible for what the system says of it: the limits of its control groups less their usage, and
//! what the machine has. Not responsible for what is made of it.

use std::fs;
use std::path::{Path, PathBuf};

/// In bytes, as far as the system says: the least of what the control groups and the machine leave.
pub(super) fn free() -> Option<u64> {
    let groups = fs::read_to_string("/proc/self/cgroup").unwrap_or_default();
    let machine = fs::read_to_string("/proc/meminfo")
        .ok()
        .and_then(|text| available(&text));
    let left = groups.lines().filter_map(Group::of_line).flat_map(|group| {
        let root = group.root();
        // A limit of a group holds for those within it too. In a container the path may be that of
        // the host, and then only the root is seen.
        let inner = root.join(group.path.trim_start_matches('/'));
        let seen: Vec<_> = inner
            .ancestors()
            .take_while(|path| path.starts_with(&root))
            .map(Path::to_path_buf)
            .collect();
        seen.into_iter().filter_map(move |path| group.left(&path))
    });
    left.chain(machine).min()
}

/// A line of `/proc/self/cgroup` that has to do with memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Group<'a> {
    is_v2: bool,
    path: &'a str,
}

impl<'a> Group<'a> {
    /// `0::/path` is version 2, `4:memory:/path` version 1.
    fn of_line(line: &'a str) -> Option<Self> {
        let mut fields = line.splitn(3, ':');
        let (_, controllers, path) = (fields.next()?, fields.next()?, fields.next()?);
        let is_v2 = controllers.is_empty();
        let is_memory = controllers.split(',').any(|name| name == "memory");
        (is_v2 || is_memory).then_some(Self { is_v2, path })
    }

    fn root(self) -> PathBuf {
        let folder = if self.is_v2 { "" } else { "memory" };
        Path::new("/sys/fs/cgroup").join(folder)
    }

    fn left(self, folder: &Path) -> Option<u64> {
        let (limit, usage, cached) = match self.is_v2 {
            true => ("memory.max", "memory.current", "inactive_file"),
            false => (
                "memory.limit_in_bytes",
                "memory.usage_in_bytes",
                "total_inactive_file",
            ),
        };
        let read = |name: &str| fs::read_to_string(folder.join(name)).ok();
        let stat = read("memory.stat").unwrap_or_default();
        left(&read(limit)?, &read(usage)?, field(&stat, cached))
    }
}

/// What a limit leaves. Files that nobody has read for a while count as usage, and are given up first.
fn left(limit: &str, usage: &str, cached: Option<u64>) -> Option<u64> {
    // `max`: no limit.
    let limit: u64 = limit.trim().parse().ok()?;
    let usage: u64 = usage.trim().parse().ok()?;
    let used = usage.saturating_sub(cached.unwrap_or_default());
    Some(limit.saturating_sub(used))
}

/// `MemAvailable` of `/proc/meminfo`.
fn available(meminfo: &str) -> Option<u64> {
    field(meminfo, "MemAvailable:").map(|kibibytes| kibibytes.saturating_mul(1024))
}

/// The number behind a name at the start of a line.
fn field(text: &str, name: &str) -> Option<u64> {
    text.lines().find_map(|line| {
        let mut words = line.split_ascii_whitespace();
        (words.next() == Some(name)).then(|| words.next()?.parse().ok())?
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_limit_leaves_what_is_not_used_and_files_do_not_count() {
        assert_eq!(left("1000\n", "400\n", None), Some(600));
        assert_eq!(left("1000\n", "400\n", Some(300)), Some(900));
        assert_eq!(left("1000", "1200", None), Some(0), "beyond it");
        assert_eq!(left("1000", "100", Some(300)), Some(1000));
        assert_eq!(left("max\n", "400\n", None), None, "no limit");
    }

    #[test]
    fn both_versions_of_control_groups_are_found_and_other_controllers_are_not() {
        let group = |is_v2, path| Some(Group { is_v2, path });
        assert_eq!(Group::of_line("0::/a/b"), group(true, "/a/b"));
        assert_eq!(Group::of_line("4:memory:/a:b"), group(false, "/a:b"));
        assert_eq!(Group::of_line("7:cpu,memory:/"), group(false, "/"));
        assert_eq!(Group::of_line("5:cpuset:/a"), None);
        assert_eq!(Group::of_line(""), None);
    }

    #[test]
    fn the_machine_says_what_is_available_in_kibibytes() {
        let text = "MemTotal: 4096 kB\nMemFree:  1 kB\nMemAvailable:    2048 kB\n";
        assert_eq!(available(text), Some(2 << 20));
        assert_eq!(available("MemTotal: 1 kB\n"), None);
    }

    #[cfg(target_os = "linux")]
    #[test]
    fn on_linux_something_is_known() {
        assert!(free().is_some_and(|bytes| bytes > 0));
    }
}
