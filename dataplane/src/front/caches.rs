//! The caches of a front by place: the table of each, its sockets, and what it was asked for.

use std::os::fd::OwnedFd;

use nautilus_shm::attach::CACHES_MAX;
use nautilus_shm::region::Access;
use nautilus_shm::sampled_hits::HitRegion;
use nautilus_shm::table::{TableReader, TableRegion};
use nix::sys::socket::{getsockopt, sockopt};

use super::FrontError;
use super::datagrams::Datagrams;
use super::link::Target;
use super::reads::Reads;
use crate::access::AccessList;
use crate::supervisor::caches::CacheOpened;
use crate::supervisor::front_resources::CacheSockets;
use crate::supervisor::handover::Fds;

/// One cache.
pub struct Served {
    /// How the worker knows it.
    pub target: Target,
    /// Who may do what with it.
    pub access: AccessList,
    /// Reads of its memory.
    pub reads: Reads,
    /// Its TCP listeners.
    pub listeners: Vec<OwnedFd>,
    /// The listener for control.
    pub local: Option<OwnedFd>,
    /// Whose connections come to it: the user that made it listen.
    pub local_uid: Option<u32>,
    /// Its UDP sockets of the kernel.
    pub datagrams: Datagrams,
}

impl Served {
    /// Takes the descriptors of a cache and maps its memory, read-only.
    pub fn take(
        opened: &CacheOpened,
        access: AccessList,
        fds: &mut Fds,
    ) -> Result<Self, FrontError> {
        let memory = TableRegion::attach(fds.take(&opened.memory_name())?, Access::ReadOnly)
            .map_err(|error| FrontError::Region("cache", error))?;
        let hits = HitRegion::attach(fds.take(&opened.hits_name())?, Access::ReadWrite)
            .map_err(|error| FrontError::Region("sampled hits", error))?;
        let memory = memory.with_hits(hits);
        let CacheSockets { listeners, datagrams, local } = CacheSockets::take(fds, opened.place);
        let made = local.as_ref().map(|local| getsockopt(local, sockopt::PeerCredentials));
        let local_uid = made.and_then(Result::ok).map(|made| made.uid());
        let target = Target { place: opened.place.into(), generation: opened.generation };
        Ok(Self {
            target,
            reads: Reads::new(TableReader::attach(memory)?),
            listeners,
            local,
            local_uid,
            datagrams: Datagrams::new(target, datagrams, access.clone())
                .map_err(FrontError::Socket)?,
            access,
        })
    }
}

impl Served {
    /// Its TCP listeners, then that for control.
    pub fn all_listeners(&self) -> impl Iterator<Item = &OwnedFd> {
        self.listeners.iter().chain(&self.local)
    }
}

/// All of them.
#[derive(Default)]
pub struct FrontCaches {
    places: [Option<Box<Served>>; CACHES_MAX],
    /// Numbers that datagrams of earlier caches of a place were given: an answer that comes late must not
    /// find one of the next.
    used: [u32; CACHES_MAX],
    /// What earlier caches counted.
    gone: Gone,
}

/// Counts of caches that are gone: a metric never falls.
#[derive(Clone, Copy, Default)]
pub struct Gone {
    /// Datagrams received.
    pub datagrams: u64,
    /// Datagrams dropped.
    pub dropped_datagrams: u64,
    /// System calls.
    pub syscalls: u64,
}

impl FrontCaches {
    /// Puts a cache into its place.
    pub fn insert(&mut self, mut cache: Served) {
        let place = cache.target.place as usize;
        if let Some(own) = self.places.get_mut(place) {
            cache.datagrams.generation = self.used[place];
            *own = Some(Box::new(cache));
        }
    }

    /// Takes a cache out, unless it is gone.
    pub fn remove(&mut self, target: Target) -> Option<Box<Served>> {
        self.get(target)?;
        let cache = self.places[target.place as usize].take()?;
        self.used[target.place as usize] = cache.datagrams.generation;
        self.gone.datagrams += cache.datagrams.received;
        self.gone.dropped_datagrams += cache.datagrams.dropped;
        self.gone.syscalls += cache.datagrams.syscalls();
        Some(cache)
    }

    /// What was counted of caches that are gone.
    pub fn gone(&self) -> Gone {
        self.gone
    }

    /// The cache of a place.
    #[inline]
    pub fn at(&mut self, place: u32) -> Option<&mut Served> {
        self.places.get_mut(place as usize)?.as_deref_mut()
    }

    /// The cache that is meant, unless it is gone.
    #[inline]
    pub fn get(&mut self, target: Target) -> Option<&mut Served> {
        self.at(target.place).filter(|cache| cache.target == target)
    }

    /// All that there are.
    pub fn all(&mut self) -> impl Iterator<Item = &mut Served> {
        self.places.iter_mut().flatten().map(Box::as_mut)
    }

    /// The same, to be looked at.
    pub fn iter(&self) -> impl Iterator<Item = &Served> {
        self.places.iter().flatten().map(Box::as_ref)
    }
}
