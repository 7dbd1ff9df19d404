//! The edge node manager: what nodes are wanted, what has to be done for it, and doing it.
//!
//! ```text
//!   EdgeDeploymentConfig --check--.                     .--> dry run: printed
//!   inventory of nodes ------------+--> planner (pure) --> Plan --> Reconciler --> NodeActuator
//!   session state -----------------'                              |  each step before and after
//!                                                                 v
//!                                                               store: plan, progress, node records
//! ```
//!
//! What a spec orders of a node's host (`host.rs`) is asked of the node's supervisor before a plan is taken, where it
//! answers, and again by the steps of the plan.
//!
//! The planner decides everything and touches nothing; the reconciler decides nothing but whether a step
//! went well.

pub mod actuator;
pub mod claims;
pub mod drift;
pub mod fields;
pub mod host;
pub mod lifecycle;
pub mod manager;
pub mod operations;
pub mod plan;
pub mod planner;
pub mod reconciler;
mod records;
pub mod runner;
pub mod sessions;
pub mod settings;
pub mod spec;
pub mod supervisors;
pub mod tier;

pub use lifecycle::NodeState;
pub use manager::{EdgeNodeManager, ManagerError, Taken};
pub use operations::{Operation, OperationKind};
pub use spec::{DeploymentStrategy, EdgeDeploymentConfig, EdgeNodeSpec, SpecErrors};
pub use tier::EdgeNodeType;
