//! The scoreboard: every figure the product is judged by, ours and the peer in the same run on the
//! same core. `README.md` has the rules; `rows.toml` the limits.

pub mod allocations;
pub mod clock;
pub mod generator;
pub mod ground;
pub mod itch;
pub mod lines;
pub mod loss;
pub mod order;
pub mod plot;
pub mod probe;
pub mod replay;
pub mod report;
pub mod results;
pub mod row;
pub mod rows;
pub mod run;
pub mod several;
pub mod site;
pub mod stage;
pub mod syscalls;
pub mod tcp;
pub mod traffic;
