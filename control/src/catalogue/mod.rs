//! The regions nodes can stand in, and when their venues trade: data files in the program, which a site's own
//! file adds to.
//!
//! Read by whoever checks a region id, judges a latency against physics or asks which sessions concern a
//! node. Nothing writes it while the program runs.

mod region;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::OnceLock;

use serde::Deserialize;

pub use region::{RegionKind, TradingRegion};

use crate::calendar::{self, Calendars};
use crate::id;

/// The file in the program; calendars have one of their own.
const REGIONS: &str = include_str!("regions.toml");

/// Regions, the groups of them, and the calendars of venues.
#[derive(Clone, Debug, Default)]
pub struct Catalogue {
    regions: Vec<TradingRegion>,
    groups: BTreeMap<String, Vec<String>>,
    /// Ids and aliases, spelt alike, to the place of the region.
    places: BTreeMap<String, usize>,
    calendars: Calendars,
}

/// Why a file of regions was refused.
#[derive(Debug, thiserror::Error)]
pub enum CatalogueError {
    /// It could not be read.
    #[error("{}: {source}", path.display())]
    Read {
        /// Which.
        path: PathBuf,
        /// What the kernel said.
        source: std::io::Error,
    },
    /// It is not TOML, a key is unknown or missing, or a value has the wrong type.
    #[error("{}: {message}", path.display())]
    Parse {
        /// Which.
        path: PathBuf,
        /// What and where.
        message: String,
    },
    /// A value that cannot be.
    #[error("{}: {key}: {reason}", path.display())]
    Value {
        /// Which file.
        path: PathBuf,
        /// Full path of the key.
        key: String,
        /// What is wrong with it.
        reason: String,
    },
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct File {
    #[serde(default)]
    region: Vec<TradingRegion>,
    #[serde(default)]
    group: Vec<Group>,
    #[serde(default)]
    calendar: Vec<calendar::Section>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Group {
    id: String,
    regions: Vec<String>,
}

impl Catalogue {
    /// What is in the program.
    pub fn built_in() -> &'static Self {
        static BUILT_IN: OnceLock<Catalogue> = OnceLock::new();
        BUILT_IN.get_or_init(|| {
            let regions = Self::default().with(Path::new("regions.toml"), REGIONS);
            let calendars = Path::new("calendars.toml");
            let parsed = regions.and_then(|own| own.with(calendars, calendar::BUILT_IN));
            // A test reads the same texts.
            parsed.unwrap_or_default()
        })
    }

    /// What is in the program and in a site's file, which replaces by id or venue, and adds.
    pub fn load(path: &Path) -> Result<Self, CatalogueError> {
        let text = std::fs::read_to_string(path)
            .map_err(|source| CatalogueError::Read { path: path.into(), source })?;
        Self::built_in().clone().with(path, &text)
    }

    /// This catalogue with the content of a file; `path` is for messages.
    pub fn with(mut self, path: &Path, text: &str) -> Result<Self, CatalogueError> {
        let file: File = toml::from_str(text).map_err(|error| CatalogueError::Parse {
            path: path.into(),
            message: error.to_string().trim_end().into(),
        })?;
        let value =
            |key: String, reason: String| CatalogueError::Value { path: path.into(), key, reason };
        for (index, region) in file.region.into_iter().enumerate() {
            let at = |key: &str| format!("region[{index}].{key}");
            region.check().map_err(|(key, reason)| value(at(key), reason))?;
            let place = self.regions.iter().position(|known| known.id == region.id);
            let place = place.unwrap_or(self.regions.len());
            self.places.retain(|_, other| *other != place);
            for name in std::iter::once(&region.id).chain(&region.aliases) {
                if let Some(other) = self.places.insert(spelt_alike(name), place)
                    && other != place
                {
                    let other = &self.regions[other].id;
                    return Err(value(at("id"), format!("{name} is already {other}")));
                }
            }
            match self.regions.get_mut(place) {
                Some(known) => *known = region,
                None => self.regions.push(region),
            }
        }
        for (index, group) in file.group.into_iter().enumerate() {
            let at = |key: &str| format!("group[{index}].{key}");
            if !id::is_valid(&group.id) {
                return Err(value(at("id"), format!("{:?}: {}", group.id, id::RULE)));
            }
            if self.region(&group.id).is_some() {
                return Err(value(at("id"), format!("{} is a region", group.id)));
            }
            if group.regions.is_empty() {
                return Err(value(at("regions"), "a group needs a region".into()));
            }
            let mut members = Vec::new();
            for (member, name) in group.regions.iter().enumerate() {
                let region = self.region(name).ok_or_else(|| {
                    value(at(&format!("regions[{member}]")), format!("there is no region {name}"))
                })?;
                members.push(region.id.clone());
            }
            self.groups.insert(group.id, members);
        }
        self.calendars.add(file.calendar).map_err(|(key, reason)| value(key, reason))?;
        Ok(self)
    }

    /// Every region, in the order of the files.
    pub fn regions(&self) -> &[TradingRegion] {
        &self.regions
    }

    /// The calendars of venues.
    pub fn calendars(&self) -> &Calendars {
        &self.calendars
    }

    /// The region of this id or alias, in any of its spellings: `nyse_mahwah`, `NyseMahwah`, `NYSE_MAHWAH`.
    pub fn region(&self, name: &str) -> Option<&TradingRegion> {
        self.places.get(&spelt_alike(name)).map(|place| &self.regions[*place])
    }

    /// The regions that a region's id or a group's means; none for an unknown one.
    pub fn resolve(&self, name: &str) -> Vec<&TradingRegion> {
        if let Some(region) = self.region(name) {
            return vec![region];
        }
        let group = self.groups.iter().find(|(id, _)| spelt_alike(id) == spelt_alike(name));
        group
            .map_or_else(Vec::new, |(_, ids)| ids.iter().filter_map(|id| self.region(id)).collect())
    }

    /// Ids of all groups.
    pub fn groups(&self) -> impl Iterator<Item = &str> {
        self.groups.keys().map(String::as_str)
    }
}

/// Letters and digits in lower case: what all spellings of one id share.
fn spelt_alike(name: &str) -> String {
    name.chars().filter(char::is_ascii_alphanumeric).map(|c| c.to_ascii_lowercase()).collect()
}

#[cfg(test)]
mod tests;
