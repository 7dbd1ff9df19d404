//! H1's site: ten nodes and a control, and the clients that ask all of them while they change.

pub mod load;
pub mod site;
mod steps;
