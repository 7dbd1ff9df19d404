//! All connections by number, and which of them have moved in this turn.

use super::client::Client;
use super::ring::Token;

/// Buffers kept for the next answer. Too low: an allocation an answer. Too high: memory.
const SPARE_BUFFERS_MAX: usize = 256;

/// Larger ones are freed.
const SPARE_BYTES_MAX: usize = 16 << 10;

struct Place {
    client: Option<Client>,
    /// Of the connection that is, or comes, here; 24 bits.
    generation: u32,
    touched: bool,
}

/// The connections.
#[derive(Default)]
pub struct Clients {
    places: Vec<Place>,
    free: Vec<u32>,
    touched: Vec<u32>,
    count: usize,
    held_bytes: usize,
    spare: Vec<Vec<u8>>,
}

impl Clients {
    /// How many there are.
    pub fn count(&self) -> usize {
        self.count
    }

    /// Memory of all their buffers.
    pub fn held_bytes(&self) -> usize {
        self.held_bytes
    }

    /// Numbers that were ever used.
    pub fn places(&self) -> u32 {
        self.places.len() as u32
    }

    /// Adds one; it counts as touched.
    pub fn insert(&mut self, client: Client) {
        let index = self.free.pop().unwrap_or_else(|| {
            self.places.push(Place { client: None, generation: 0, touched: false });
            self.places.len() as u32 - 1
        });
        self.places[index as usize].client = Some(client);
        self.count += 1;
        self.touch(index);
    }

    /// Closes one. Its number comes again with another generation.
    pub fn remove(&mut self, index: u32) {
        let Some(place) = self.places.get_mut(index as usize) else { return };
        let Some(client) = place.client.take() else { return };
        self.held_bytes -= client.held_bytes;
        self.count -= 1;
        place.generation = (place.generation + 1) & 0xff_ffff;
        self.free.push(index);
    }

    /// The connection of this token, unless it is gone.
    pub fn get_mut(&mut self, token: Token) -> Option<&mut Client> {
        let place = self.places.get_mut(token.index as usize)?;
        if place.generation == token.generation { place.client.as_mut() } else { None }
    }

    /// The connection of this number.
    pub fn at_mut(&mut self, index: u32) -> Option<&mut Client> {
        self.places.get_mut(index as usize)?.client.as_mut()
    }

    /// The connection of this number and its token.
    pub fn with_token(&mut self, index: u32) -> Option<(Token, &mut Client)> {
        let place = self.places.get_mut(index as usize)?;
        Some((Token { index, generation: place.generation }, place.client.as_mut()?))
    }

    /// How a connection is named to the worker.
    pub fn number(&self, token: Token) -> u64 {
        u64::from(token.generation) << 32 | u64::from(token.index)
    }

    /// The same by its number.
    pub fn number_of(&self, index: u32) -> u64 {
        let generation = self.places.get(index as usize).map_or(0, |place| place.generation);
        self.number(Token { index, generation })
    }

    /// The connection that the worker's answer is for, unless it is gone.
    pub fn by_number(&mut self, number: u64) -> Option<(u32, &mut Client)> {
        let token = Token { index: number as u32, generation: (number >> 32) as u32 };
        Some((token.index, self.get_mut(token)?))
    }

    /// Notes that a connection has moved.
    pub fn touch(&mut self, index: u32) {
        let Some(place) = self.places.get_mut(index as usize) else { return };
        if !std::mem::replace(&mut place.touched, true) {
            self.touched.push(index);
        }
    }

    /// The next connection that has moved since it was last given out.
    pub fn next_touched(&mut self) -> Option<u32> {
        let index = self.touched.pop()?;
        self.places[index as usize].touched = false;
        Some(index)
    }

    /// Counts a connection's memory anew.
    pub fn account(&mut self, index: u32) {
        let Some(place) = self.places.get_mut(index as usize) else { return };
        let Some(client) = place.client.as_mut() else { return };
        let held_bytes = client.connection.held_bytes() + client.sending_bytes;
        self.held_bytes = self.held_bytes + held_bytes - client.held_bytes;
        client.held_bytes = held_bytes;
    }

    /// Keeps a buffer for later.
    pub fn recycle(&mut self, mut buffer: Vec<u8>) {
        let capacity = buffer.capacity();
        if capacity > 0 && capacity <= SPARE_BYTES_MAX && self.spare.len() < SPARE_BUFFERS_MAX {
            buffer.clear();
            self.spare.push(buffer);
        }
    }

    /// A buffer for an answer.
    pub fn spare(&mut self) -> Vec<u8> {
        self.spare.pop().unwrap_or_default()
    }
}
