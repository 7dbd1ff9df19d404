//! Every live order of the engine by reference, and the queues of a price in order of time.
//!
//! Orders lie in one pool; those of a price are linked both ways, so that one in the middle leaves in
//! constant time. Written by the engine alone.

use crate::feed::itch::{Nanoseconds, Side, Text};
use std::collections::HashMap;

/// No order.
const NONE: u32 = u32::MAX;

/// One resting order.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Order {
    /// Reference number, unique in the day.
    pub reference: u64,
    /// Stock locate of its book.
    pub locate: u16,
    /// Side.
    pub side: Side,
    /// Limit price, 1e-4.
    pub price: u32,
    /// Shares left, never 0.
    pub shares: u32,
    /// Participant shown with the order.
    pub attribution: Option<Text<4>>,
    /// When it took its place.
    pub timestamp: Nanoseconds,
    /// Its place in time: a lower one is earlier, and none is given twice.
    pub place: u64,
}

struct Node {
    order: Order,
    before: u32,
    after: u32,
}

/// The orders of one price of one side.
#[derive(Clone, Copy, Debug)]
pub struct Queue {
    first: u32,
    last: u32,
    /// How many there are.
    pub orders: u32,
    /// The sum of their shares.
    pub shares: u64,
}

impl Default for Queue {
    fn default() -> Self {
        Self { first: NONE, last: NONE, orders: 0, shares: 0 }
    }
}

impl Queue {
    /// Handle of the earliest order.
    pub fn first(&self) -> Option<u32> {
        (self.first != NONE).then_some(self.first)
    }
}

/// The pool.
#[derive(Default)]
pub struct Orders {
    nodes: Vec<Node>,
    free: Vec<u32>,
    by_reference: HashMap<u64, u32>,
}

impl Orders {
    /// How many live orders there are.
    pub fn len(&self) -> usize {
        self.by_reference.len()
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.by_reference.is_empty()
    }

    /// Handle of the order of this reference.
    pub fn find(&self, reference: u64) -> Option<u32> {
        self.by_reference.get(&reference).copied()
    }

    /// The order of a handle that [`Self::find`] or a [`Queue`] gave.
    pub fn get(&self, handle: u32) -> &Order {
        &self.nodes[handle as usize].order
    }

    /// Puts a new order behind those of its price.
    pub fn push(&mut self, queue: &mut Queue, order: Order) {
        let node = Node { order, before: queue.last, after: NONE };
        let handle = match self.free.pop() {
            Some(handle) => {
                self.nodes[handle as usize] = node;
                handle
            }
            None => {
                self.nodes.push(node);
                (self.nodes.len() - 1) as u32
            }
        };
        match queue.last {
            NONE => queue.first = handle,
            last => self.nodes[last as usize].after = handle,
        }
        queue.last = handle;
        queue.orders += 1;
        queue.shares += u64::from(order.shares);
        let before = self.by_reference.insert(order.reference, handle);
        assert!(before.is_none(), "order reference {} given twice", order.reference);
    }

    /// Takes an order out of the queue it is in.
    pub fn remove(&mut self, queue: &mut Queue, handle: u32) -> Order {
        let &Node { order, before, after } = &self.nodes[handle as usize];
        match before {
            NONE => queue.first = after,
            before => self.nodes[before as usize].after = after,
        }
        match after {
            NONE => queue.last = before,
            after => self.nodes[after as usize].before = before,
        }
        queue.orders -= 1;
        queue.shares -= u64::from(order.shares);
        self.by_reference.remove(&order.reference);
        self.free.push(handle);
        order
    }

    /// Takes `shares` off an order that keeps some, and its place.
    pub fn reduce(&mut self, queue: &mut Queue, handle: u32, shares: u32) {
        let order = &mut self.nodes[handle as usize].order;
        assert!(shares < order.shares, "{shares} of {order:?}");
        order.shares -= shares;
        queue.shares -= u64::from(shares);
    }

    /// The orders of a queue, the earliest first.
    pub fn iter(&self, queue: &Queue) -> impl Iterator<Item = &Order> {
        let node = |handle: u32| self.nodes.get(handle as usize);
        std::iter::successors(node(queue.first), move |previous| node(previous.after))
            .map(|node| &node.order)
    }
}
