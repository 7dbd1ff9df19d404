//! A hot slot written by somebody who does not keep to the rules: any bytes, by the map's descriptor.

use std::os::fd::{AsRawFd, BorrowedFd};

use libbpf_rs::libbpf_sys as raw;
use nautilus_ebpf::intf::HotSlot;

#[derive(Clone)]
pub struct Slot<'map> {
    map: BorrowedFd<'map>,
    index: u32,
    bytes: [u8; size_of::<HotSlot>()],
}

impl<'map> Slot<'map> {
    pub fn read(map: BorrowedFd<'map>, index: u32) -> Self {
        let mut bytes = [0; size_of::<HotSlot>()];
        // SAFETY: key and value are live and as long as the map's, whose shape is `HotSlot`'s.
        let result = unsafe {
            raw::bpf_map_lookup_elem(
                map.as_raw_fd(),
                (&raw const index).cast(),
                bytes.as_mut_ptr().cast(),
            )
        };
        assert_eq!(result, 0);
        Self { map, index, bytes }
    }

    /// In both copies.
    pub fn with_reply_bytes(mut self, reply_bytes: u16) -> Self {
        for copy in [8, 320] {
            self.bytes[copy + 50..copy + 52].copy_from_slice(&reply_bytes.to_ne_bytes());
        }
        self
    }

    pub fn with_version(mut self, version: u64) -> Self {
        self.bytes[..8].copy_from_slice(&version.to_ne_bytes());
        self
    }

    pub fn write(self) {
        // SAFETY: as in `read`.
        let result = unsafe {
            raw::bpf_map_update_elem(
                self.map.as_raw_fd(),
                (&raw const self.index).cast(),
                self.bytes.as_ptr().cast(),
                0,
            )
        };
        assert_eq!(result, 0);
    }
}
