//! How much memory the kernel lets this process have: the limit of its cgroup, or of one above it.
//!
//! Where the process is in its cgroup's tree is in `/proc/self/cgroup`, and where that tree is
//! mounted in `/proc/self/mountinfo`. A container may see its own cgroup as the root, or the host's
//! tree from a root that lies above its own.

use std::fs;
use std::path::{Component, Path, PathBuf};

/// Version 1 writes a number of this size for "no limit". No host has as much memory.
const NO_LIMIT: u64 = 1 << 60;

/// Directories that are searched for the process's own, where `/proc/self/cgroup` does not give its
/// path. A bound for trees that are made to be large.
const MOST_LOOKED_THROUGH: usize = 1 << 16;

/// A memory limit that the kernel enforces.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OwnLimit {
    pub bytes: usize,
    /// The file that has the limit.
    pub file: PathBuf,
    /// The process's own cgroup, which may be one below.
    pub dir: PathBuf,
}

impl OwnLimit {
    /// Whether other processes are charged to the cgroup, too, as when ktrace runs in another's
    /// container.
    #[must_use]
    pub fn is_shared(&self) -> bool {
        let processes = fs::read_to_string(self.dir.join("cgroup.procs")).unwrap_or_default();
        let own = std::process::id();
        processes.lines().any(|line| line.trim().parse() != Ok(own))
    }
}

/// The tightest limit of this process's cgroups that can be seen.
#[must_use]
pub fn own_limit() -> Option<OwnLimit> {
    let read = |path| fs::read_to_string(path).unwrap_or_default();
    tightest(&read("/proc/self/cgroup"), &read("/proc/self/mountinfo"), std::process::id())
}

fn tightest(cgroups: &str, mounts: &str, pid: u32) -> Option<OwnLimit> {
    let mut limits = Vec::new();
    for mount in mounts.lines().filter_map(Mount::read) {
        let Some(path) = cgroups.lines().find_map(|line| mount.path_in(line)) else { continue };
        let Some(own) = mount.directory(path, pid) else { continue };
        let mut dir = own.clone();
        loop {
            limits.extend(limits_of(&dir).map(|(bytes, file)| OwnLimit { bytes, file, dir: own.clone() }));
            if dir == mount.point || !dir.pop() {
                break;
            }
        }
    }
    limits.into_iter().min_by_key(|limit| limit.bytes)
}

/// What the files of a cgroup say, as far as they are there. The root has none.
fn limits_of(dir: &Path) -> impl Iterator<Item = (usize, PathBuf)> {
    let of = |name: &str, number: fn(&str) -> Option<&str>| {
        let file = dir.join(name);
        let bytes = number(&fs::read_to_string(&file).ok()?)?.trim().parse::<u64>().ok()?;
        let bytes = usize::try_from(bytes).ok()?;
        (bytes > 0 && bytes as u64 <= NO_LIMIT).then_some((bytes, file))
    };
    let all: fn(&str) -> Option<&str> = |text| Some(text);
    // Of all above it, too, also those that are not in sight.
    let hierarchical: fn(&str) -> Option<&str> =
        |text| text.lines().find_map(|line| line.strip_prefix("hierarchical_memory_limit "));
    [of("memory.max", all), of("memory.limit_in_bytes", all), of("memory.stat", hierarchical)]
        .into_iter()
        .flatten()
}

/// A mounted cgroup tree that limits memory.
struct Mount<'a> {
    /// The cgroup that is mounted, as the process's own namespace calls it.
    root: &'a str,
    point: PathBuf,
    is_v2: bool,
}

impl<'a> Mount<'a> {
    /// Of a line of `mountinfo`: number, parent, device, root, mount point, options, optional
    /// fields, `-`, type, source, options.
    fn read(line: &'a str) -> Option<Self> {
        let (mount, system) = line.split_once(" - ")?;
        let mut fields = mount.split(' ').skip(3);
        let (root, point) = (fields.next()?, fields.next()?);
        let mut system = system.split(' ');
        let (kind, options) = (system.next()?, system.nth(1)?);
        let limits_memory = match kind {
            "cgroup" => options.split(',').any(|option| option == "memory"),
            kind => kind == "cgroup2",
        };
        // Blanks and the like are written in octal.
        let point = point.replace("\\040", " ");
        limits_memory.then(|| Self { root, point: point.into(), is_v2: kind == "cgroup2" })
    }

    /// The process's path, if this line of `/proc/self/cgroup` is of this tree: number,
    /// controllers, path.
    fn path_in<'b>(&self, line: &'b str) -> Option<&'b str> {
        let mut fields = line.splitn(3, ':');
        let (number, controllers, path) = (fields.next()?, fields.next()?, fields.next()?);
        let is_of_this = match self.is_v2 {
            true => number == "0" && controllers.is_empty(),
            false => controllers.split(',').any(|controller| controller == "memory"),
        };
        is_of_this.then_some(path)
    }

    /// The directory of the process's cgroup.
    fn directory(&self, path: &str, pid: u32) -> Option<PathBuf> {
        let above = Path::new(self.root).components().filter(|part| *part == Component::ParentDir).count();
        if above > 0 {
            // The mounted cgroup lies above what the process sees as the root: its own is so far
            // below, whatever its name.
            return holding(&self.point, above, pid).map(|dir| dir.join(path.trim_start_matches('/')));
        }
        let within = match Path::new(path).strip_prefix(self.root) {
            Ok(within) if !within.components().any(|part| part == Component::ParentDir) => within,
            // Only its own cgroup is mounted, or one that has nothing to do with it.
            Ok(_) | Err(_) => Path::new(""),
        };
        Some(self.point.join(within))
    }
}

/// The directory so far below that holds the process.
fn holding(dir: &Path, below: usize, pid: u32) -> Option<PathBuf> {
    let mut dirs = vec![dir.to_owned()];
    for _ in 0..below {
        let entries = dirs.iter().flat_map(|dir| fs::read_dir(dir).into_iter().flatten().flatten());
        let subs = entries.filter(|entry| entry.file_type().is_ok_and(|kind| kind.is_dir()));
        dirs = subs.map(|entry| entry.path()).take(MOST_LOOKED_THROUGH).collect();
    }
    dirs.into_iter().find(|dir| {
        let processes = fs::read_to_string(dir.join("cgroup.procs")).unwrap_or_default();
        processes.lines().any(|line| line.parse() == Ok(pid))
    })
}

/// What the kernel has charged to a cgroup and cannot take back by itself: without the cache of
/// files, and of their names (each look through `/proc` leaves many).
#[must_use]
pub fn usage(dir: &Path) -> Option<usize> {
    let read = |name: &str| fs::read_to_string(dir.join(name)).ok();
    let all = read("memory.current").or_else(|| read("memory.usage_in_bytes"))?;
    let stat = read("memory.stat").unwrap_or_default();
    let cached = stat.lines().filter_map(|line| {
        let (name, bytes) = line.split_once(' ')?;
        matches!(name, "active_file" | "inactive_file" | "slab_reclaimable")
            .then(|| bytes.parse::<usize>().ok())?
    });
    Some(all.trim().parse::<usize>().ok()?.saturating_sub(cached.sum()))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A tree of cgroups: directories with a file each.
    struct Tree(PathBuf);

    impl Tree {
        fn new(name: &str, files: &[(&str, &str)]) -> Self {
            let root = std::env::temp_dir().join(format!("ktrace-own-limit-{name}-{}", std::process::id()));
            for (file, text) in files {
                let file = root.join(file);
                fs::create_dir_all(file.parent().unwrap()).unwrap();
                fs::write(file, text).unwrap();
            }
            Self(root)
        }

        fn tightest(&self, cgroups: &str, root: &str, system: &str) -> Option<(usize, String)> {
            let mounts = format!(
                "22 1 8:1 / / rw - ext4 /dev/sda rw\n30 22 0:26 {root} {} rw,nosuid shared:4 - {system}\n",
                self.0.display()
            );
            let found = tightest(cgroups, &mounts, 77)?;
            Some((found.bytes, found.file.strip_prefix(&self.0).unwrap().display().to_string()))
        }
    }

    impl Drop for Tree {
        fn drop(&mut self) {
            let _ = fs::remove_dir_all(&self.0);
        }
    }

    const V2: &str = "cgroup2 cgroup2 rw";
    const V1: &str = "cgroup cgroup rw,cpu,memory";

    #[test]
    fn the_tightest_above_counts() {
        let tree = Tree::new(
            "above",
            &[
                ("a.slice/memory.max", "1000\n"),
                ("a.slice/b/memory.max", "2000\n"),
                ("a.slice/b/c/memory.max", "max\n"),
                ("other/memory.max", "5\n"),
            ],
        );
        let found = tree.tightest("0::/a.slice/b/c\n", "/", V2);
        assert_eq!(found, Some((1000, "a.slice/memory.max".to_owned())));
        assert_eq!(tree.tightest("0::/\n", "/", V2), None);
        assert_eq!(tree.tightest("4:memory:/a.slice/b\n", "/", V2), None, "of another tree");
        // A container that sees the host's path of itself, and its own cgroup as the mount's root.
        let found = tree.tightest("0::/other/x\n", "/other", V2);
        assert_eq!(found, None);
    }

    #[test]
    fn version_1_has_a_number_for_none() {
        let tree = Tree::new(
            "v1",
            &[
                ("memory.limit_in_bytes", "9223372036854771712\n"),
                ("docker/x/memory.limit_in_bytes", "536870912\n"),
                ("docker/x/memory.stat", "cache 0\nhierarchical_memory_limit 268435456\n"),
            ],
        );
        let found = tree.tightest("5:cpu,memory:/docker/x\n0::/\n", "/", V1);
        assert_eq!(found, Some((268_435_456, "docker/x/memory.stat".to_owned())));
        assert_eq!(tree.tightest("5:cpu,memory:/\n0::/\n", "/", V1), None);
    }

    #[test]
    fn a_container_sees_its_own_as_the_root() {
        let tree = Tree::new("own", &[("memory.max", "300\n")]);
        // Its own namespace, and the host's with its own cgroup mounted.
        for (cgroups, root) in [("0::/\n", "/"), ("0::/kubepods/pod1/x\n", "/kubepods/pod1/x")] {
            assert_eq!(tree.tightest(cgroups, root, V2), Some((300, "memory.max".to_owned())), "{root}");
        }
        // Its path is outside of what is mounted.
        assert_eq!(tree.tightest("0::/../elsewhere\n", "/", V2), Some((300, "memory.max".to_owned())));
    }

    /// As deploy/daemonset.yaml has it: the host's tree is mounted in a container with a namespace
    /// of its own.
    #[test]
    fn the_hosts_tree_in_a_container_is_looked_through() {
        let tree = Tree::new(
            "host",
            &[
                ("kubepods/pod1/memory.max", "700\n"),
                ("kubepods/pod1/x/memory.max", "900\n"),
                ("kubepods/pod1/x/cgroup.procs", "5\n77\n"),
                ("kubepods/pod2/y/memory.max", "5\n"),
                ("kubepods/pod2/y/cgroup.procs", "7\n"),
            ],
        );
        let found = tree.tightest("0::/\n", "/../../..", V2);
        assert_eq!(found, Some((700, "kubepods/pod1/memory.max".to_owned())));
        assert_eq!(tree.tightest("0::/\n", "/..", V2), None);
    }
}
