//! Deployments in a daemon: the store, the one thread that carries plans out, and a door for those who ask.
//!
//! ```text
//!   handlers (threads that may block) -- ask() one at a time --> manager --> store
//!                                                                 wake |       ^
//!                                                                      v       |
//!                                     thread "deployments": manager.run() -----'  at the start too
//! ```
//!
//! What cannot be carried on now (a full disk) is tried again every second, and said until then.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, mpsc};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use nautilus_host::order::Shortfall;

use super::actuator::NodeActuator;
use super::claims::{ClaimError, Claims};
use super::lifecycle::NodeState;
use super::manager::{EdgeNodeManager, ManagerError, Taken};
use super::plan::{Inventory, Plan};
use super::planner::Circumstances;
use super::reconciler::Reconciler;
use super::settings::DeploySettings;
use super::spec::{EdgeDeploymentConfig, EdgeNodeSpec};
use super::supervisors::Supervisors;
use crate::catalogue::{Catalogue, CatalogueError};
use crate::config::NodeSpec;
use crate::store::embedded::{Embedded, Options};
use crate::store::{Revision, Store, StoreError};

/// Pause after a plan could not be carried on. Too low: a full disk is asked all day; too high: it goes on
/// late.
const PAUSE: Duration = Duration::from_secs(1);

/// Dry runs whose plans can be asked for by id. Too low: the plan that somebody looked at is gone.
const DRY_RUNS_MAX: usize = 64;

/// Age at which a host is looked at anew for those who ask for drift. Too low: a page that is open all day has
/// each host read every second; too high: isolation that is gone is told late.
const HOST_AGE: Duration = Duration::from_secs(5);

/// Why deployments could not be started.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// The store cannot be opened, or another control has it open.
    #[error("control.store")]
    Store(#[from] StoreError),
    /// The site's regions cannot be read.
    #[error("control.catalogue")]
    Catalogue(#[from] CatalogueError),
    /// Another control deploys to one of the nodes.
    #[error(transparent)]
    Node(ClaimError),
    /// The kernel said no.
    #[error("deployments")]
    Io(#[from] std::io::Error),
}

/// Tells the time, ns since 1970 UTC.
pub type Clock = fn() -> u64;

/// A plan that somebody has looked at.
struct DryRun {
    plan_id: String,
    /// None where plans of two configurations look the same.
    config: Option<EdgeDeploymentConfig>,
}

/// What a node's host was last seen to lack.
struct Host {
    /// Of what.
    spec: EdgeNodeSpec,
    seen: Instant,
    lacking: Vec<Shortfall>,
}

/// Deployments of one control.
pub struct Deployments {
    store: Arc<dyn Store>,
    actuator: Arc<dyn NodeActuator>,
    catalogue: Catalogue,
    settings: DeploySettings,
    clock: Clock,
    /// Nodes that can be reached, with the region that each one's section names.
    known: BTreeMap<String, Option<String>>,
    turn: Mutex<()>,
    wake: mpsc::Sender<()>,
    trouble: Mutex<String>,
    dry_runs: Mutex<Vec<DryRun>>,
    hosts: Mutex<BTreeMap<String, Host>>,
}

impl Deployments {
    /// Opens the store and goes on with what was under way; none where no store is configured. `clock` tells whether a
    /// session is open, [`system_clock`] but for tests; `say` prints a line for the operator.
    pub fn open(
        settings: &DeploySettings,
        nodes: &[NodeSpec],
        clock: Clock,
        say: fn(&str),
    ) -> Result<Option<Arc<Self>>, StartError> {
        let Some(file) = &settings.store else { return Ok(None) };
        let store: Arc<dyn Store> = Arc::new(Embedded::open(file, Options::default())?);
        let catalogue = match &settings.catalogue {
            Some(file) => Catalogue::load(file)?,
            None => Catalogue::built_in().clone(),
        };
        let claims = Claims::default();
        let mut run_dirs = BTreeMap::new();
        for node in nodes {
            let Some(id) = &node.id else { continue };
            // One that is not there yet is claimed before its first order.
            if let Err(taken @ ClaimError::Taken(_)) = claims.hold(&node.run_dir) {
                return Err(StartError::Node(taken));
            }
            run_dirs.insert(id.clone(), node.run_dir.clone());
        }
        // A word that the catalogue does not know is for people, and says nothing of where the node is.
        let place = |name: &String| catalogue.region(name).map(|region| region.id.clone());
        let known = nodes.iter().filter_map(|node| {
            node.id.clone().map(|id| (id, node.region.as_ref().and_then(place)))
        });
        let known = known.collect();
        let (wake, woken) = mpsc::channel();
        let own = Arc::new(Self {
            store,
            actuator: Arc::new(Supervisors { run_dirs, claims }),
            catalogue,
            settings: settings.clone(),
            clock,
            known,
            turn: Mutex::new(()),
            wake,
            trouble: Mutex::new(String::new()),
            dry_runs: Mutex::new(Vec::new()),
            hosts: Mutex::default(),
        });
        let runner = Arc::clone(&own);
        let builder = std::thread::Builder::new().name("deployments".into());
        builder.spawn(move || runner.run(&woken, say))?;
        Ok(Some(own))
    }

    /// The store, for those who watch.
    pub fn store(&self) -> Arc<dyn Store> {
        Arc::clone(&self.store)
    }

    /// What a plan is made with that is made now.
    pub fn circumstances(&self, is_forced: bool) -> Circumstances {
        self.settings.circumstances(&self.catalogue, (self.clock)(), is_forced)
    }

    /// Whether a node of this id is configured.
    pub fn is_known(&self, node_id: &str) -> bool {
        self.known.contains_key(node_id)
    }

    /// Where the configuration has a node, if it says so.
    pub fn region_of(&self, node_id: &str) -> Option<&str> {
        self.known.get(node_id)?.as_deref()
    }

    /// Why the plan under way does not go on just now; empty otherwise.
    pub fn trouble(&self) -> String {
        lock(&self.trouble).clone()
    }

    /// Looks something up.
    pub fn look<T>(&self, work: impl FnOnce(&EdgeNodeManager<'_>) -> T) -> T {
        work(&self.manager())
    }

    /// Asks for something, one after the other, and sees to it that it is carried out.
    pub fn ask<T>(&self, work: impl FnOnce(&EdgeNodeManager<'_>) -> T) -> T {
        let _turn = lock(&self.turn);
        let result = work(&self.manager());
        // The thread lives as long as the process.
        let _ = self.wake.send(());
        result
    }

    /// Plans a deployment and remembers it by the plan's id.
    pub fn dry_run(
        &self,
        config: &EdgeDeploymentConfig,
        circumstances: &Circumstances,
    ) -> Result<Option<Plan>, ManagerError> {
        let manager = self.manager();
        let Some(plan) = manager.plan(config, circumstances)? else { return Ok(None) };
        manager.check_hosts(config, &plan)?;
        let mut dry_runs = lock(&self.dry_runs);
        let place = dry_runs.iter().position(|known| known.plan_id == plan.plan_id);
        let before = place.map(|place| dry_runs.remove(place));
        let is_other = before.is_some_and(|before| before.config.as_ref() != Some(config));
        let config = if is_other { None } else { Some(config.clone()) };
        dry_runs.push(DryRun { plan_id: plan.plan_id.clone(), config });
        if dry_runs.len() > DRY_RUNS_MAX {
            dry_runs.remove(0);
        }
        Ok(Some(plan))
    }

    /// The configuration whose dry run had this plan.
    pub fn planned(&self, plan_id: &str) -> Option<EdgeDeploymentConfig> {
        let dry_runs = lock(&self.dry_runs);
        dry_runs.iter().find(|known| known.plan_id == plan_id)?.config.clone()
    }

    /// Takes a deployment; with `plan_id` only if the plan is still that one, else none is taken, and with `seen` only
    /// if what it replaces is as that has it.
    pub fn deploy(
        &self,
        config: &EdgeDeploymentConfig,
        plan_id: Option<&str>,
        is_forced: bool,
        seen: Option<&dyn Fn(Revision) -> bool>,
    ) -> Result<Option<Taken>, ManagerError> {
        self.ask(|manager| {
            // Whoever was asked before may have taken a while.
            let circumstances = self.circumstances(is_forced);
            if let Some(plan_id) = plan_id {
                let known = manager.operations()?;
                let is_taken = known
                    .iter()
                    .any(|known| known.plan_id == plan_id && known.config.as_ref() == Some(config));
                let same = |plan: &Plan| plan.plan_id == plan_id;
                if !is_taken && !manager.plan(config, &circumstances)?.as_ref().is_some_and(same) {
                    return Ok(None);
                }
            }
            manager.deploy_in_place_of(config, &circumstances, seen).map(Some)
        })
    }

    /// What the hosts of nodes that serve lack of what was ordered, as seen at most [`HOST_AGE`] ago. One that
    /// does not answer is as it was last seen.
    pub fn hosts(&self, wanted: &Inventory) -> BTreeMap<String, Vec<Shortfall>> {
        let mut hosts = lock(&self.hosts);
        let active = wanted.values().filter(|record| record.state == NodeState::Active);
        let active: Vec<&EdgeNodeSpec> = active.map(|record| &record.spec).collect();
        hosts.retain(|id, host| {
            active.iter().any(|spec| spec.node_id == *id && host.spec == **spec)
        });
        let is_old = |spec: &EdgeNodeSpec| {
            hosts.get(&spec.node_id).is_none_or(|host| host.seen.elapsed() > HOST_AGE)
        };
        let old: Vec<(usize, &EdgeNodeSpec)> =
            active.iter().copied().enumerate().filter(|(_, spec)| is_old(spec)).collect();
        for (index, lacking) in self.manager().look_at(&old) {
            let (spec, seen) = (active[index].clone(), Instant::now());
            hosts.insert(spec.node_id.clone(), Host { spec, seen, lacking });
        }
        hosts.iter().map(|(id, host)| (id.clone(), host.lacking.clone())).collect()
    }

    fn manager(&self) -> EdgeNodeManager<'_> {
        let reconciler = Reconciler::new(&*self.store, &*self.actuator);
        EdgeNodeManager { reconciler, catalogue: &self.catalogue }
    }

    fn run(&self, woken: &mpsc::Receiver<()>, say: fn(&str)) {
        loop {
            let run = || self.manager().run();
            let result = std::panic::catch_unwind(std::panic::AssertUnwindSafe(run));
            let trouble = match result {
                Ok(Ok(_)) => String::new(),
                Ok(Err(error)) => error.to_string(),
                // What it was about is on the log; the marks in the store say where to go on.
                Err(_) => "a step broke, which is a fault of this program".to_owned(),
            };
            let is_well = trouble.is_empty();
            let before = std::mem::replace(&mut *lock(&self.trouble), trouble.clone());
            if before != trouble {
                say(&match is_well {
                    true => "deployments go on".to_owned(),
                    false => format!("deployments wait: {trouble}"),
                });
            }
            let ended = if is_well {
                woken.recv().is_err()
            } else {
                woken.recv_timeout(PAUSE) == Err(mpsc::RecvTimeoutError::Disconnected)
            };
            if ended {
                return;
            }
            while woken.try_recv().is_ok() {}
        }
    }
}

/// The time of this host.
pub fn system_clock() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_nanos()).unwrap_or(u64::MAX)
}

fn lock<T>(place: &Mutex<T>) -> MutexGuard<'_, T> {
    // Each holder leaves it whole.
    place.lock().unwrap_or_else(PoisonError::into_inner)
}
