//! What the configuration says about deployments: `[control.store]`, `[control.catalogue]`,
//! `[control.deploy]`.

use std::path::PathBuf;

use serde::Deserialize;

use super::planner::Circumstances;

/// Keys of `[control]` that are read here.
pub const KEYS: [&str; 3] = ["store", "catalogue", "deploy"];

/// Longest a node may be measured. Above it, a typing error is likelier than a wish.
const JUDGE_S_MAX: u64 = 3_600;

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
}

/// The keys as they stand in the file.
#[derive(Default, Deserialize)]
pub struct DeployKeys {
    store: Option<StoreKeys>,
    catalogue: Option<CatalogueKeys>,
    deploy: Option<JudgeKeys>,
}

#[derive(Deserialize)]
struct StoreKeys {
    file: PathBuf,
}

#[derive(Deserialize)]
struct CatalogueKeys {
    file: PathBuf,
}

#[derive(Deserialize)]
struct JudgeKeys {
    judge_s: Option<u64>,
    judge_canary_s: Option<u64>,
}

/// The first key that nothing reads, with its path below `[control]`.
pub fn unknown_key(control: &toml::Table) -> Option<String> {
    let sections: [(&str, &[&str]); 3] = [
        ("store", &["file"]),
        ("catalogue", &["file"]),
        ("deploy", &["judge_s", "judge_canary_s"]),
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
        let (mut judge_s, mut judge_canary_s) = (None, None);
        if let Some(judge) = keys.deploy {
            (judge_s, judge_canary_s) = (judge.judge_s, judge.judge_canary_s);
        }
        for (key, value) in [("judge_s", judge_s), ("judge_canary_s", judge_canary_s)] {
            if let Some(value) = value.filter(|value| *value > JUDGE_S_MAX) {
                let reason = format!("{value} is not in 0..={JUDGE_S_MAX}");
                return Err((format!("deploy.{key}"), reason));
            }
        }
        let (store, catalogue) = (keys.store.map(|s| s.file), keys.catalogue.map(|c| c.file));
        Ok(Self { store, catalogue, judge_s, judge_canary_s })
    }

    /// What plans are made with. No calendar tells sessions yet: each is unknown, and taken for open.
    pub fn circumstances(&self, is_forced: bool) -> Circumstances {
        let default = Circumstances::default();
        let ms = |seconds: Option<u64>, default| seconds.map_or(default, |s| s * 1_000);
        Circumstances {
            judge_ms: ms(self.judge_s, default.judge_ms),
            judge_canary_ms: ms(self.judge_canary_s, default.judge_canary_ms),
            is_forced,
            ..default
        }
    }
}
