//! Mounts that nobody else sees, and that go with the test.
#![allow(dead_code)]

use std::path::{Path, PathBuf};

use nix::mount::{MsFlags, mount};
use nix::sched::{CloneFlags, unshare};

/// Runs a test in a mount namespace of its own: on a thread, whose threads and processes are in it, too.
pub fn in_mounts_of_its_own(test: impl FnOnce() + Send + 'static) {
    let thread = std::thread::spawn(move || {
        unshare(CloneFlags::CLONE_NEWNS).unwrap();
        let (nothing, private) = (None::<&str>, MsFlags::MS_REC | MsFlags::MS_PRIVATE);
        mount(nothing, "/", nothing, private, nothing).unwrap();
        test();
    });
    if let Err(panic) = thread.join() {
        std::panic::resume_unwind(panic);
    }
}

/// A small file system in memory, and what fills it.
pub struct SmallDisk {
    at: PathBuf,
}

impl SmallDisk {
    /// Mounts one of so many KiB at `at`, which is made where it is missing.
    pub fn mount(at: &Path, kib: u32) -> Self {
        std::fs::create_dir_all(at).unwrap();
        let options = format!("size={kib}k,mode=0755");
        let flags = MsFlags::empty();
        mount(Some("tmpfs"), at, Some("tmpfs"), flags, Some(options.as_str())).unwrap();
        Self { at: at.to_owned() }
    }

    fn filler(&self) -> PathBuf {
        self.at.join("filler")
    }

    /// Leaves no byte for anybody.
    pub fn fill(&self) {
        use std::io::Write;
        let mut file = std::fs::File::create(self.filler()).unwrap();
        while file.write(&[0; 4096]).is_ok() {}
    }

    /// There is room again.
    pub fn free(&self) {
        std::fs::remove_file(self.filler()).unwrap();
    }
}
