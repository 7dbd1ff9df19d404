//! How often the program answered from each slot. It counts per CPU; nobody else writes.

use std::io;
use std::os::fd::{AsFd, OwnedFd};

use crate::intf::HOT_SLOTS;
use crate::steering::{SteeringError, check_hot_map};
use crate::sys;

/// The `hot_hits` map. Every method is a system call: not for the run loop.
#[derive(Debug)]
pub struct HotHits {
    map: OwnedFd,
    cpus: usize,
    /// Scratch of [`Self::read_all`].
    keys: Vec<u32>,
    per_cpu: Vec<u64>,
}

impl HotHits {
    /// From the descriptor of `hot_hits`.
    pub fn new(map: OwnedFd) -> Result<Self, SteeringError> {
        check_hot_map(map.as_fd(), 2)?;
        let cpus = libbpf_rs::num_possible_cpus()
            .map_err(|error| SteeringError::Descriptor(io::Error::other(error)))?;
        let slots = HOT_SLOTS as usize;
        Ok(Self { map, cpus, keys: vec![0; slots], per_cpu: vec![0; slots * cpus] })
    }

    /// Answers from one slot since the program was loaded, whatever keys it held.
    pub fn hits(&mut self, slot: u32) -> io::Result<u64> {
        let per_cpu = &mut self.per_cpu[..self.cpus];
        if !sys::map_lookup(self.map.as_fd(), &slot, per_cpu)? {
            return Err(io::ErrorKind::InvalidInput.into());
        }
        Ok(per_cpu.iter().sum())
    }

    /// The same for every slot in one call, as of no single moment.
    pub fn read_all(&mut self, hits: &mut [u64; HOT_SLOTS as usize]) -> io::Result<()> {
        sys::map_lookup_all(self.map.as_fd(), &mut self.keys, &mut self.per_cpu)?;
        for (sum, per_cpu) in hits.iter_mut().zip(self.per_cpu.chunks_exact(self.cpus)) {
            *sum = per_cpu.iter().sum();
        }
        Ok(())
    }
}
