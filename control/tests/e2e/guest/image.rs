//! The guest's initramfs: the few programs that scenarios use with their libraries, DPDK's
//! drivers, modules, `weir`, and this test binary.

use std::fs;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use super::Kernel;
use crate::topology::{checked, find_program, repository, text};

/// What scenarios run, beside busybox's tools. `unshare` is here because busybox's would start its
/// own small `ip`.
const PROGRAMS: &[&str] = &[
    "bash", "env", "curl", "ethtool", "ip", "iperf3", "ipvsadm", "nginx", "setpriv", "ss",
    "sysctl", "tc", "tcpdump", "unshare",
];
/// DPDK's drivers for ports that scenarios have. All of them together need a hundred libraries.
const DRIVERS: &[&str] = &[
    "bus_pci",
    "bus_vdev",
    "mempool_ring",
    "net_af_packet",
    "net_bond",
    "net_memif",
    "net_null",
    "net_ring",
    "net_tap",
    "net_virtio",
];

/// Scripts under test, at the path that they have here.
const SCRIPTS: &[&str] = &["scripts/realserver", "scripts/lib/say.sh"];

/// nginx asks for its user even where it does not change to it.
const PASSWD: &str = "root:x:0:0:root:/:/bin/sh\nnobody:x:65534:65534::/:/bin/false\n";
const GROUP: &str = "root:x:0:\nnogroup:x:65534:\n";

/// Builds the initramfs in `dir`; its path.
pub(super) fn build(dir: &Path, kernel: &Kernel, modules: &[&str], scenarios: &str) -> PathBuf {
    let tree = Tree::new(dir.join("root"));
    for name in PROGRAMS {
        let path = find_program(name);
        let path =
            path.unwrap_or_else(|| panic!("no {name}; run `sudo scripts/test`, which installs it"));
        tree.program(&path);
    }
    tree.stage(&find_program("busybox").expect("looked for before"));
    tree.dpdk_drivers();
    tree.ours("weir", &crate::weir::binary());
    tree.ours("e2e", &std::env::current_exe().expect("the test itself"));
    for script in SCRIPTS {
        tree.stage(&repository().join(script));
    }

    let order = kernel.with_dependencies(modules);
    for file in &order {
        tree.copy(&kernel.modules_dir().join(file), &format!("modules/{file}"));
    }
    tree.write("modules/order", &(order.join("\n") + "\n"));
    tree.write("scenarios", scenarios);
    tree.write("etc/passwd", PASSWD);
    tree.write("etc/group", GROUP);
    tree.write("init", include_str!("init.sh"));
    let executable = fs::Permissions::from_mode(0o755);
    fs::set_permissions(tree.root.join("init"), executable).expect("it is ours");
    for empty in ["var/log/nginx", "var/lib/nginx"] {
        fs::create_dir_all(tree.root.join(empty)).expect("it is ours");
    }
    tree.pack(dir.join("initramfs"))
}

/// The guest's root while it is put together.
#[derive(Debug)]
struct Tree {
    root: PathBuf,
}

impl Tree {
    /// A root with Debian's shape: `/bin`, `/sbin` and the `/lib`s lie in `/usr`.
    fn new(root: PathBuf) -> Tree {
        for dir in ["bin", "sbin", "lib", "lib64"] {
            fs::create_dir_all(root.join("usr").join(dir)).expect("the directory is ours");
            symlink(format!("usr/{dir}"), root.join(dir)).expect("the directory is ours");
        }
        Tree { root }
    }

    /// The host's program or library `path` with all libraries it is linked to.
    fn program(&self, path: &Path) {
        self.stage(path);
        self.libraries_of(path);
    }

    fn libraries_of(&self, path: &Path) {
        // `libm.so.6 => /lib/x86_64-linux-gnu/libm.so.6 (0x…)`, and the loader without an arrow.
        for line in text(checked(Command::new("ldd").arg(path))).lines() {
            let library = line.split_whitespace().find(|word| word.starts_with('/'));
            if let Some(library) = library {
                self.stage(Path::new(library));
            }
        }
    }

    /// The host's file `path` at the same place. Symlinks stay symlinks, and what they point to
    /// comes along: DPDK loads a driver twice that is there twice, and aborts.
    fn stage(&self, path: &Path) {
        let to = self.root.join(path.strip_prefix("/").expect("absolute"));
        if to.symlink_metadata().is_ok() {
            return;
        }
        let dir = to.parent().expect("below the root");
        fs::create_dir_all(dir).expect("the directory is ours");
        match fs::read_link(path) {
            Ok(target) => {
                symlink(&target, &to).expect("the directory is ours");
                let dir = path.parent().expect("not the root");
                let dir = dir.canonicalize().expect("it was just read");
                self.stage(&flat(&dir.join(target)));
            }
            Err(_) => {
                fs::copy(path, &to).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
            }
        }
    }

    /// One of our own programs in the guest's root, without its debug information.
    fn ours(&self, name: &str, path: &Path) {
        self.libraries_of(path);
        let mut strip = Command::new("strip");
        strip.arg("--strip-debug").arg(path);
        checked(strip.arg("-o").arg(self.root.join(name)));
    }

    fn dpdk_drivers(&self) {
        // pmds-23.0 or whatever this DPDK's interface version is.
        let dpdk = Path::new("/usr/lib/x86_64-linux-gnu/dpdk");
        let entries = fs::read_dir(dpdk).expect("DPDK is installed");
        for entry in entries {
            let dir = entry.expect("readable").path();
            let files = fs::read_dir(&dir).expect("a directory of drivers");
            for file in files {
                let file = file.expect("readable").path();
                let name = file.file_name().and_then(|name| name.to_str());
                let name = name.unwrap_or_default();
                let wanted = |driver: &str| name.starts_with(&format!("librte_{driver}.so."));
                if DRIVERS.iter().any(|driver| wanted(driver)) {
                    self.program(&file);
                }
            }
        }
    }

    fn copy(&self, from: &Path, to: &str) {
        let to = self.root.join(to);
        fs::create_dir_all(to.parent().expect("a directory")).expect("the directory is ours");
        fs::copy(from, to).unwrap_or_else(|error| panic!("{}: {error}", from.display()));
    }

    fn write(&self, to: &str, text: &str) {
        let to = self.root.join(to);
        fs::create_dir_all(to.parent().expect("a directory")).expect("the directory is ours");
        fs::write(to, text).expect("the directory is ours");
    }

    /// As the archive that the kernel unpacks into its first file system. Not compressed: the
    /// guest's processor is slower than the copy.
    fn pack(&self, archive: PathBuf) -> PathBuf {
        let mut names = text(checked(
            Command::new("find").arg(".").current_dir(&self.root),
        ));
        names.truncate(names.trim_end().len());
        let list = archive.with_extension("list");
        fs::write(&list, names + "\n").expect("the directory is ours");
        let mut cpio = Command::new("cpio");
        cpio.args(["--create", "--format=newc", "--quiet", "--owner=+0:+0"])
            .current_dir(&self.root)
            .stdin(fs::File::open(&list).expect("just written"))
            .stdout(fs::File::create(&archive).expect("the directory is ours"))
            .stderr(Stdio::inherit());
        let done = cpio.status().expect("looked for before");
        assert!(done.success(), "cpio: {done}");
        archive
    }
}

/// `path` without `..`.
fn flat(path: &Path) -> PathBuf {
    let mut flat = PathBuf::new();
    for part in path.components() {
        match part {
            std::path::Component::ParentDir => {
                flat.pop();
            }
            part => flat.push(part),
        }
    }
    flat
}
