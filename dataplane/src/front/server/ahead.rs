//! Completions that are handled together: bucket and cell of the first key of each are asked of memory
//! before any of them is waited for.

use nautilus_shm::table::Ahead;

use super::{Event, Server};
use crate::front::link::Target;
use crate::memcached::parse::first_key;

/// Completions that are handled together. Too low: waits for memory are not overlapped. Too high: the first
/// lines are gone from the cache when they are used.
const TOGETHER: usize = 16;

impl Server<'_> {
    /// Handles at most `most` completions, and says how many.
    pub(super) fn together(&mut self, most: usize) -> usize {
        let mut events = std::mem::take(&mut self.events);
        while events.len() < most.min(TOGETHER)
            && let Some(event) = self.ring.next_event()
        {
            events.push(event);
        }
        let count = events.len();
        if count > 1 {
            self.look_ahead(&events);
        }
        events.drain(..).for_each(|event| self.handle(event));
        self.events = events;
        count
    }

    /// Only hints: what is in a buffer may be the middle of anything.
    fn look_ahead(&mut self, events: &[Event]) {
        let mut asked: [Option<(Target, Ahead)>; TOGETHER] = [None; TOGETHER];
        for (event, asked) in events.iter().zip(&mut asked) {
            let Event::Received { token, result: Ok((Some(buffer), bytes)), .. } = event else {
                continue;
            };
            let Some(first) = first_key(self.ring.buffer(*buffer, *bytes)) else { continue };
            let Some(client) = self.clients.get_mut(*token) else { continue };
            let target = client.cache;
            let Some(cache) = self.caches.get(target) else { continue };
            *asked = Some((target, cache.reads.ask_bucket(first.key)));
        }
        for (target, ahead) in asked.into_iter().flatten() {
            if let Some(cache) = self.caches.get(target) {
                cache.reads.ask_cell(ahead);
            }
        }
    }
}
