//! Paths of managers that are not built: 501 with the reason, in the document too.

use axum::http::{Method, StatusCode};
use axum::routing::{MethodFilter, on};
use utoipa::openapi::path::{Operation, OperationBuilder, ParameterBuilder, ParameterIn};
use utoipa::openapi::{HttpMethod, ObjectBuilder, Required, Type};
use utoipa_axum::router::OpenApiRouter;

use super::Managers;
use crate::problem::Problem;

/// Method, path, and the manager it waits for.
pub type Row = (&'static str, &'static str, &'static str);

const PLACEMENT: &str = "the placement optimizer";
const PERFORMANCE: &str = "the regional performance optimizer";
const FAILOVER: &str = "the failover manager";
const MONITORING: &str = "the monitoring system";

/// All but those that a noun's own file lists.
pub const TABLE: &[Row] = &[
    ("POST", "/api/v1/edge/placement/activities", PLACEMENT),
    ("POST", "/api/v1/edge/placement/optimize", PLACEMENT),
    ("GET", "/api/v1/edge/placement/recommendations", PLACEMENT),
    ("POST", "/api/v1/edge/performance/profiles", PERFORMANCE),
    ("POST", "/api/v1/edge/performance/optimize/{region_id}", PERFORMANCE),
    ("GET", "/api/v1/edge/performance/summary", PERFORMANCE),
    ("POST", "/api/v1/edge/failover/configure", FAILOVER),
    ("POST", "/api/v1/edge/failover/manual/{node_id}", FAILOVER),
    ("GET", "/api/v1/edge/failover/status", FAILOVER),
    ("POST", "/api/v1/edge/monitoring/alerts", MONITORING),
    ("GET", "/api/v1/edge/monitoring/metrics/{name}", MONITORING),
    ("GET", "/api/v1/edge/monitoring/dashboards/{id}", MONITORING),
    ("GET", "/api/v1/edge/monitoring/status", MONITORING),
    ("GET", "/api/v1/edge/audit", "the trail over HTTP (`nautilus audit` reads it here)"),
];

/// Routes that answer 501 to these methods, and 405 to others.
pub fn routes(rows: &[Row]) -> OpenApiRouter<Managers> {
    let mut router = OpenApiRouter::new();
    for (method, path, manager) in rows {
        let (filter, documented) = match *method {
            "GET" => (MethodFilter::GET, HttpMethod::Get),
            "PUT" => (MethodFilter::PUT, HttpMethod::Put),
            "DELETE" => (MethodFilter::DELETE, HttpMethod::Delete),
            _ => (MethodFilter::POST, HttpMethod::Post),
        };
        let manager = *manager;
        router = router.route(path, on(filter, async move |_: Method| not_built(manager)));
        let paths = &mut router.get_openapi_mut().paths;
        paths.add_path_operation(*path, vec![documented], operation(method, path, manager));
    }
    router
}

fn not_built(manager: &str) -> Problem {
    let detail = format!("{manager} is not built in this version");
    Problem::new(StatusCode::NOT_IMPLEMENTED, "not-available", "Not available", detail)
}

fn operation(method: &str, path: &str, manager: &str) -> Operation {
    let words = path.trim_start_matches(super::ROOT).split(['/', '{', '}']);
    let words: Vec<&str> = words.filter(|word| !word.is_empty()).collect();
    let operation = OperationBuilder::new()
        .tag(words[0])
        .operation_id(Some(format!("{}_{}", method.to_lowercase(), words.join("_"))))
        .summary(Some(format!("Not available: {manager}")));
    let names = path.split('/').filter_map(|part| part.strip_prefix('{')?.strip_suffix('}'));
    let text = || ObjectBuilder::new().schema_type(Type::String).build();
    let parameters = names.map(|name| {
        ParameterBuilder::new()
            .name(name)
            .parameter_in(ParameterIn::Path)
            .required(Required::True)
            .schema(Some(text()))
            .build()
    });
    operation.parameters(Some(parameters.collect::<Vec<_>>())).build()
}
