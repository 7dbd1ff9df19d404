//! Transparent huge pages under a region that was made on ordinary ones.

use super::{HUGE_PAGE_BYTES, Region};

impl Region {
    /// Asks the kernel to put the region's pages together into huge ones, here and now, and returns
    /// how many bytes it did that for: 0 where it cannot (before Linux 6.1, or without transparent
    /// huge pages). Unlike `huge_pages: true` it needs no pages set aside by the host, and unlike
    /// `MADV_HUGEPAGE` it does not ask `shmem_enabled` (madvise(2), `MADV_COLLAPSE`). Whoever maps
    /// the region afterwards maps the huge pages. Takes about 3 s a GiB; for start-up.
    pub fn collapse(&self) -> usize {
        let mut collapsed_bytes = 0;
        for offset in (0..self.bytes / HUGE_PAGE_BYTES * HUGE_PAGE_BYTES).step_by(HUGE_PAGE_BYTES) {
            // SAFETY: a whole huge page inside the mapping; its contents stay what they are.
            let result = unsafe {
                let at = self.base.add(offset).cast().as_ptr();
                libc::madvise(at, HUGE_PAGE_BYTES, libc::MADV_COLLAPSE)
            };
            if result == 0 {
                collapsed_bytes += HUGE_PAGE_BYTES;
            } else if collapsed_bytes == 0 {
                // Not on this kernel; a later page may fail alone for want of free memory.
                return 0;
            }
        }
        collapsed_bytes
    }
}
