//! Who may do what: one table. What is not in it needs an admin.

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

/// What somebody may do. Each may do what the ones before may.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum Role {
    /// Looks.
    Viewer,
    /// Runs what there is: caches, drains, failovers, alerts.
    Operator,
    /// Decides what there is and who may what: nodes, certificates, configuration.
    Admin,
}

impl Role {
    /// All of them, from least to most.
    pub const ALL: [Self; 3] = [Self::Viewer, Self::Operator, Self::Admin];

    /// As it stands in certificates and records.
    pub fn name(self) -> &'static str {
        match self {
            Self::Viewer => "viewer",
            Self::Operator => "operator",
            Self::Admin => "admin",
        }
    }

    /// The role of this name.
    pub fn of(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|role| role.name() == name)
    }
}

/// What a request needs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Needs {
    /// Nothing, not even a certificate: whoever got this far.
    Nothing,
    /// This role or one above.
    Role(Role),
}

const ANYONE: Needs = Needs::Nothing;
const VIEWER: Needs = Needs::Role(Role::Viewer);
const OPERATOR: Needs = Needs::Role(Role::Operator);
const ADMIN: Needs = Needs::Role(Role::Admin);

/// Method, path as routed, what it needs.
pub const TABLE: &[(&str, &str, Needs)] = &[
    ("GET", "/livez", ANYONE),
    ("GET", "/readyz", VIEWER),
    ("GET", "/metrics", VIEWER),
    ("GET", "/api/v1/edge/version", VIEWER),
    ("GET", "/api/v1/edge/openapi.json", VIEWER),
    ("GET", "/api/v1/edge/docs", VIEWER),
    ("GET", "/api/v1/edge/docs/page.js", VIEWER),
    ("GET", "/api/v1/edge/docs/page.css", VIEWER),
    // The token in its body is what it needs.
    ("POST", "/api/v1/edge/enrol", ANYONE),
    // Its own certificate, again.
    ("POST", "/api/v1/edge/renew", VIEWER),
    ("GET", "/api/v1/edge/certificates", ADMIN),
    ("POST", "/api/v1/edge/certificates/tokens", ADMIN),
    ("POST", "/api/v1/edge/certificates/{serial}/revoke", ADMIN),
    ("GET", "/api/v1/edge/nodes/status", VIEWER),
    ("GET", "/api/v1/edge/nodes/{node_id}/health", VIEWER),
    ("POST", "/api/v1/edge/nodes/deploy", ADMIN),
    ("POST", "/api/v1/edge/nodes/{node_id}/drain", OPERATOR),
    ("POST", "/api/v1/edge/nodes/{node_id}/resume", OPERATOR),
    ("POST", "/api/v1/edge/nodes/{node_id}/retire", ADMIN),
    ("GET", "/api/v1/edge/deployments", VIEWER),
    ("GET", "/api/v1/edge/deployments/{deployment_id}", VIEWER),
    ("GET", "/api/v1/edge/operations", VIEWER),
    ("GET", "/api/v1/edge/operations/{operation_id}", VIEWER),
    ("GET", "/api/v1/edge/operations/{operation_id}/events", VIEWER),
    ("POST", "/api/v1/edge/operations/{operation_id}/abort", ADMIN),
    ("POST", "/api/v1/edge/placement/activities", OPERATOR),
    ("POST", "/api/v1/edge/placement/optimize", OPERATOR),
    ("GET", "/api/v1/edge/placement/recommendations", VIEWER),
    ("POST", "/api/v1/edge/cache/create", OPERATOR),
    ("GET", "/api/v1/edge/cache/status", VIEWER),
    ("GET", "/api/v1/edge/cache/{cache_id}", VIEWER),
    ("PUT", "/api/v1/edge/cache/{cache_id}", OPERATOR),
    ("DELETE", "/api/v1/edge/cache/{cache_id}", OPERATOR),
    ("POST", "/api/v1/edge/performance/profiles", OPERATOR),
    ("POST", "/api/v1/edge/performance/optimize/{region_id}", OPERATOR),
    ("GET", "/api/v1/edge/performance/summary", VIEWER),
    ("POST", "/api/v1/edge/failover/configure", ADMIN),
    ("POST", "/api/v1/edge/failover/manual/{node_id}", OPERATOR),
    ("GET", "/api/v1/edge/failover/status", VIEWER),
    ("POST", "/api/v1/edge/monitoring/alerts", OPERATOR),
    ("GET", "/api/v1/edge/monitoring/metrics/{name}", VIEWER),
    ("GET", "/api/v1/edge/monitoring/dashboards/{id}", VIEWER),
    ("GET", "/api/v1/edge/monitoring/status", VIEWER),
    ("GET", "/api/v1/edge/audit", ADMIN),
];

/// What a request needs. `path` is the route's, not what was asked for; none where no route fits, so
/// that strangers cannot learn which paths there are.
pub fn needs(method: &str, path: Option<&str>) -> Needs {
    let Some(path) = path else { return VIEWER };
    let method = if method == "HEAD" { "GET" } else { method };
    let row = TABLE.iter().find(|(of, to, _)| *of == method && *to == path);
    row.map_or(ADMIN, |(_, _, needs)| *needs)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_not_listed_needs_an_admin() {
        assert_eq!(needs("GET", Some("/metrics")), VIEWER);
        assert_eq!(needs("HEAD", Some("/metrics")), VIEWER);
        assert_eq!(needs("POST", Some("/metrics")), ADMIN);
        assert_eq!(needs("GET", Some("/api/v1/edge/new")), ADMIN);
        assert_eq!(needs("POST", None), VIEWER);
        assert!(Role::Viewer < Role::Operator && Role::Operator < Role::Admin);
        assert_eq!(Role::of("operator"), Some(Role::Operator));
        assert_eq!(Role::of("Operator"), None);
    }

    #[test]
    fn nothing_that_changes_anything_is_open_to_viewers() {
        for (method, path, needs) in TABLE {
            let own = *path == "/api/v1/edge/renew" || *path == "/api/v1/edge/enrol";
            assert!(
                *method == "GET"
                    || own
                    || matches!(needs, Needs::Role(role) if *role > Role::Viewer),
                "{method} {path}"
            );
            let twice = TABLE.iter().filter(|row| row.0 == *method && row.1 == *path).count();
            assert_eq!(twice, 1, "{method} {path}");
        }
    }
}
