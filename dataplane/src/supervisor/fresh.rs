//! Fresh sockets for every worker, on kernels that map no ring of a bound socket (below Linux 6.4).
//!
//! ```text
//!   a standby starts    sockets and packet memory are made for it, not bound; it maps them
//!   the worker is dead  its sockets are closed, the kernel lets go of their queues later
//!   the queues are free the standby's sockets are bound and steered to; it is promoted
//! ```
//!
//! Packets in the dead worker's rings are lost, and until the new sockets are bound what arrives goes
//! to the kernel. Regions (control, cache) stay. [`Resources`] is written by the supervisor's one
//! thread; a dead standby's sockets are never used again.

use std::os::fd::AsFd;

use super::counters::{self, Counted};
use super::near::near;
use super::resources::{OpenError, Queue, Resources, binding_spec};
use crate::config::Resolved;
use crate::xsk::Unbound;

impl Resources {
    /// Whether a worker has to map its sockets before they are bound. Probed when they were opened or
    /// taken back.
    pub fn binds_per_worker(&self) -> bool {
        self.interfaces.iter().flat_map(|opened| &opened.queues).any(|queue| !queue.maps_when_bound)
    }

    /// Makes what the next standby is handed, where it cannot be handed what is there.
    pub fn prepare_standby(&mut self, resolved: &Resolved) -> Result<(), OpenError> {
        self.fresh = None;
        if !self.binds_per_worker() {
            return Ok(());
        }
        let mut fresh = Vec::new();
        for opened in &self.interfaces {
            let mut queues = Vec::new();
            for old in &opened.queues {
                let spec = binding_spec(resolved, opened.interface.ifindex, old.queue);
                let failed =
                    |source| OpenError::Socket { name: opened.interface.name.clone(), source };
                let _near = near(&[resolved.cores[old.worker as usize]]);
                let Unbound { fds, spec, .. } = Unbound::create(&spec).map_err(failed)?;
                queues.push(Queue {
                    queue: old.queue,
                    huge_pages: spec.umem.huge_pages,
                    worker: old.worker,
                    fds,
                    counted: Counted::default(),
                    maps_when_bound: old.maps_when_bound,
                    unbound: Some(spec),
                });
            }
            fresh.push(queues);
        }
        self.fresh = Some(fresh);
        Ok(())
    }

    /// Puts the standby's sockets into the place of the dead worker's, which are closed. `false` while
    /// the kernel has not let go of a queue: to be called again. Does nothing where sockets are handed
    /// on.
    pub fn bind_for_promotion(&mut self, zero_copy: bool) -> Result<bool, OpenError> {
        if let Some(fresh) = self.fresh.take() {
            // They count no more once they are closed.
            counters::copy(self, zero_copy);
            for (opened, queues) in self.interfaces.iter_mut().zip(fresh) {
                opened.queues = queues;
            }
        }
        for opened in &mut self.interfaces {
            let name = &opened.interface.name;
            for queue in &mut opened.queues {
                let Some(spec) = &queue.unbound else { continue };
                match spec.bind(queue.fds.socket.as_fd()) {
                    Ok(()) => {}
                    Err(error) if error.is_busy() => return Ok(false),
                    Err(source) => return Err(OpenError::Socket { name: name.clone(), source }),
                }
                if let Some(steering) = &self.steering {
                    let place = opened.first_socket + queue.queue;
                    steering
                        .set_socket(place, queue.fds.socket.as_fd())
                        .map_err(|source| OpenError::Steering { name: name.clone(), source })?;
                }
                queue.unbound = None;
            }
        }
        Ok(true)
    }
}
