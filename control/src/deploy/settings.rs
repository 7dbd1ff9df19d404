//! What the configuration says about deployments: `[control.store]`, `[control.catalogue]`,
//! `[control.deploy]`.

use std::path::PathBuf;

use serde::Deserialize;

use super::planner::Circumstances;
use super::sessions::sessions;
use crate::catalogue::Catalogue;

/// Keys of `[control]` that are read here.
pub const KEYS: [&str; 3] = ["store", "catalogue", "deploy"];

/// Longest a node may be measured. Above it, a typing error is likelier than a wish.
const JUDGE_S_MAX: u64 = 3_600;

/// How long before and after a session it counts as open, unless said. Too low: a plan begins that runs into the open, or
/// into an auction after the close; too high: a short night between two sessions is lost.
const SESSION_MARGIN_S: u64 = 900;

/// The longest.
const SESSION_MARGIN_S_MAX: u64 = 86_400;

/// How deployments are kept and made.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct DeploySettings {
    /// The file of the store; without it nothing is deployed.
    pub store: Option<PathBuf>,
    /// A site's own file of regions.
    pub catalogue: Option<PathBuf>,
    /// Seconds a node is measured before clients are let in; the planner's unless said.
    pub judge_s: Option<u64>,
    /// The same for a canary.
    pub judge_canary_s: Option<u64>,
    /// Seconds before and after a session in which it counts as open; 900 unless said.
    pub session_margin_s: Option<u64>,
}

/// The keys as they stand in the file.
#[derive(Default, Deserialize)]
pub struct DeployKeys {
    store: Option<StoreKeys>,
    catalogue: Option<CatalogueKeys>,
    deploy: Option<PlanKeys>,
}

#[derive(Deserialize)]
struct StoreKeys {
    file: PathBuf,
}

#[derive(Deserialize)]
struct CatalogueKeys {
    file: PathBuf,
}

#[derive(Default, Deserialize)]
struct PlanKeys {
    judge_s: Option<u64>,
    judge_canary_s: Option<u64>,
    session_margin_s: Option<u64>,
}

/// The first key that nothing reads, with its path below `[control]`.
pub fn unknown_key(control: &toml::Table) -> Option<String> {
    let sections: [(&str, &[&str]); 3] = [
        ("store", &["file"]),
        ("catalogue", &["file"]),
        ("deploy", &["judge_s", "judge_canary_s", "session_margin_s"]),
    ];
    sections.iter().find_map(|(section, known)| {
        let table = control.get(*section)?.as_table()?;
        let key = table.keys().find(|key| !known.contains(&key.as_str()))?;
        Some(format!("{section}.{key}"))
    })
}

impl DeploySettings {
    /// Checks what the file says. An error is the key's path below `[control]`, and what is wrong.
    pub fn of(keys: DeployKeys) -> Result<Self, (String, String)> {
        let PlanKeys { judge_s, judge_canary_s, session_margin_s } =
            keys.deploy.unwrap_or_default();
        for (key, value, max) in [
            ("judge_s", judge_s, JUDGE_S_MAX),
            ("judge_canary_s", judge_canary_s, JUDGE_S_MAX),
            ("session_margin_s", session_margin_s, SESSION_MARGIN_S_MAX),
        ] {
            if let Some(value) = value.filter(|value| *value > max) {
                return Err((format!("deploy.{key}"), format!("{value} is not in 0..={max}")));
            }
        }
        let (store, catalogue) = (keys.store.map(|s| s.file), keys.catalogue.map(|c| c.file));
        Ok(Self { store, catalogue, judge_s, judge_canary_s, session_margin_s })
    }

    /// What a plan is made with that is made now, ns since 1970 UTC.
    pub fn circumstances(
        &self,
        catalogue: &Catalogue,
        now_ns: u64,
        is_forced: bool,
    ) -> Circumstances {
        let default = Circumstances::default();
        let ms = |seconds: Option<u64>, default| seconds.map_or(default, |s| s * 1_000);
        let margin_s = self.session_margin_s.unwrap_or(SESSION_MARGIN_S);
        Circumstances {
            sessions: sessions(catalogue, now_ns, margin_s),
            is_forced,
            judge_ms: ms(self.judge_s, default.judge_ms),
            judge_canary_ms: ms(self.judge_canary_s, default.judge_canary_ms),
        }
    }
}
