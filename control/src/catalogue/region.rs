//! One region.

use serde::{Deserialize, Serialize};

use crate::id;

/// Mean radius of the earth (IUGG).
const EARTH_RADIUS_KM: f64 = 6371.0088;

/// Light in vacuum.
const LIGHT_KM_PER_S: f64 = 299_792.458;

/// What stands there.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum RegionKind {
    /// A building in which an exchange, or its access, stands.
    #[serde(alias = "Colocation", alias = "COLOCATION")]
    Colocation,
    /// A cloud provider's region.
    #[serde(alias = "Cloud", alias = "CLOUD")]
    Cloud,
}

/// A place where nodes can stand.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TradingRegion {
    /// Its id, as [`crate::id`] has it.
    pub id: String,
    /// For people.
    pub name: String,
    /// What stands there.
    pub kind: RegionKind,
    /// Who runs the building or the cloud.
    pub provider: String,
    /// Degrees, north positive.
    pub latitude_deg: f64,
    /// Degrees, east positive.
    pub longitude_deg: f64,
    /// How far the machines may be from these coordinates.
    pub accuracy_km: f64,
    /// IANA name.
    pub time_zone: String,
    /// Market identifier codes in lower case.
    pub venues: Vec<String>,
    /// Other ids of it.
    #[serde(default)]
    pub aliases: Vec<String>,
}

impl TradingRegion {
    /// The key that cannot be as it is, and why.
    pub(super) fn check(&self) -> Result<(), (&'static str, String)> {
        if let Some(name) =
            std::iter::once(&self.id).chain(&self.aliases).find(|name| !id::is_valid(name))
        {
            return Err(("id", format!("{name:?}: {}", id::RULE)));
        }
        if !(-90.0..=90.0).contains(&self.latitude_deg) {
            return Err(("latitude_deg", format!("{} is not a latitude", self.latitude_deg)));
        }
        if !(-180.0..=180.0).contains(&self.longitude_deg) {
            return Err(("longitude_deg", format!("{} is not a longitude", self.longitude_deg)));
        }
        if !(self.accuracy_km > 0.0 && self.accuracy_km <= 1000.0) {
            return Err(("accuracy_km", format!("{} is not in 0..1000", self.accuracy_km)));
        }
        let is_word = |c: char| c.is_ascii_alphanumeric() || "_+-".contains(c);
        let mut parts = self.time_zone.split('/');
        if self.time_zone.is_empty() || !parts.all(|p| !p.is_empty() && p.chars().all(is_word)) {
            return Err(("time_zone", format!("{:?} is no IANA name", self.time_zone)));
        }
        let is_code = |venue: &String| {
            venue.len() == 4
                && venue.bytes().all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit())
        };
        if let Some(venue) = self.venues.iter().find(|venue| !is_code(venue)) {
            return Err((
                "venues",
                format!("{venue:?} is no market identifier code in lower case"),
            ));
        }
        Ok(())
    }

    /// Length of the great circle to another region, between the coordinates as they are.
    pub fn distance_km(&self, other: &Self) -> f64 {
        let (a, b) = (self.latitude_deg.to_radians(), other.latitude_deg.to_radians());
        let east = (other.longitude_deg - self.longitude_deg).to_radians();
        let haversine =
            ((b - a) / 2.0).sin().powi(2) + a.cos() * b.cos() * (east / 2.0).sin().powi(2);
        2.0 * EARTH_RADIUS_KM * haversine.sqrt().min(1.0).asin()
    }

    /// The shortest one-way time that physics allows between machines of the two regions, wherever within
    /// the coordinates' accuracy they stand, in microseconds.
    pub fn floor_us(&self, other: &Self) -> f64 {
        let known_km = self.distance_km(other) - self.accuracy_km - other.accuracy_km;
        known_km.max(0.0) / LIGHT_KM_PER_S * 1e6
    }
}
