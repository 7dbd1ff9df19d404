//! The caches of a front by place: the table of each, its sockets, and what it was asked for.

use std::os::fd::OwnedFd;

use nautilus_shm::attach::CACHES_MAX;
use nautilus_shm::region::Access;
use nautilus_shm::sampled_hits::HitRegion;
use nautilus_shm::table::{TableReader, TableRegion};

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
        let CacheSockets { listeners, datagrams } = CacheSockets::take(fds, opened.place);
        let target = Target { place: opened.place.into(), generation: opened.generation };
        Ok(Self {
            target,
            reads: Reads::new(TableReader::attach(memory)?),
            listeners,
            datagrams: Datagrams::new(target, datagrams, access.clone())
                .map_err(FrontError::Socket)?,
            access,
        })
    }
}

/// All of them.
#[derive(Default)]
pub struct FrontCaches([Option<Box<Served>>; CACHES_MAX]);

impl FrontCaches {
    /// Puts a cache into its place.
    pub fn insert(&mut self, cache: Served) {
        if let Some(place) = self.0.get_mut(cache.target.place as usize) {
            *place = Some(Box::new(cache));
        }
    }

    /// The cache of a place.
    #[inline]
    pub fn at(&mut self, place: u32) -> Option<&mut Served> {
        self.0.get_mut(place as usize)?.as_deref_mut()
    }

    /// The cache that is meant, unless it is gone.
    #[inline]
    pub fn get(&mut self, target: Target) -> Option<&mut Served> {
        self.at(target.place).filter(|cache| cache.target == target)
    }

    /// All that there are.
    pub fn all(&mut self) -> impl Iterator<Item = &mut Served> {
        self.0.iter_mut().flatten().map(Box::as_mut)
    }

    /// The same, to be looked at.
    pub fn iter(&self) -> impl Iterator<Item = &Served> {
        self.0.iter().flatten().map(Box::as_ref)
    }
}
