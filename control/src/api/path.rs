//! Ids in paths.

use axum::RequestPartsExt;
use axum::extract::{FromRequestParts, Path};
use axum::http::StatusCode;
use axum::http::request::Parts;

use crate::id;
use crate::problem::Problem;

/// The one id of a path, which keeps the rule of ids.
pub struct Id(pub String);

impl<S: Send + Sync> FromRequestParts<S> for Id {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, Problem> {
        match parts.extract::<Path<String>>().await {
            Ok(Path(found)) if id::is_valid(&found) => Ok(Self(found)),
            _ => Err(Problem::new(StatusCode::BAD_REQUEST, "invalid-id", "Invalid id", id::RULE)),
        }
    }
}
