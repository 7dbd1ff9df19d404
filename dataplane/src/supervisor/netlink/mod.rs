//! rtnetlink, as much of it as the supervisor needs: links, addresses, routes, neighbours, and
//! the notifications that they changed.
//!
//! ```text
//!   kernel --RTM_*--> socket.rs --bytes--> codec.rs --messages--> link/address/route/neighbour.rs
//! ```
//!
//! Messages are parsed from bytes with every length checked (layouts: `linux/rtnetlink.h`,
//! `linux/if_link.h`, `linux/neighbour.h`); an attribute that is cut or unknown is passed over.

mod address;
mod codec;
mod link;
mod neighbour;
mod route;
mod socket;

pub use address::Address;
pub use codec::{Attributes, Message, Messages};
pub use link::Link;
pub use neighbour::Neighbour;
pub use route::Route;
pub use socket::{NetlinkError, NetlinkSocket};

/// One thing the kernel told about.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Change {
    /// A link is there, or has changed.
    Link(Link),
    /// A link has gone.
    LinkGone(u32),
    /// An address is there.
    Address(Address),
    /// An address has gone.
    AddressGone(Address),
    /// A route is there.
    Route(Route),
    /// A route has gone.
    RouteGone(Route),
    /// A neighbour is there, in whatever state.
    Neighbour(Neighbour),
    /// A neighbour has gone.
    NeighbourGone(Neighbour),
}

impl Change {
    /// What a message says, `None` for one that says nothing of interest.
    pub fn from_message(message: &Message<'_>) -> Option<Self> {
        match message.kind {
            libc::RTM_NEWLINK => Link::parse(message.body).map(Self::Link),
            libc::RTM_DELLINK => Link::parse(message.body).map(|link| Self::LinkGone(link.ifindex)),
            libc::RTM_NEWADDR => Address::parse(message.body).map(Self::Address),
            libc::RTM_DELADDR => Address::parse(message.body).map(Self::AddressGone),
            libc::RTM_NEWROUTE => Route::parse(message.body).map(Self::Route),
            libc::RTM_DELROUTE => Route::parse(message.body).map(Self::RouteGone),
            libc::RTM_NEWNEIGH => Neighbour::parse(message.body).map(Self::Neighbour),
            libc::RTM_DELNEIGH => Neighbour::parse(message.body).map(Self::NeighbourGone),
            _ => None,
        }
    }
}
