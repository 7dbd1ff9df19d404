//! Headers that make a request depend on what is there: `If-Match` and `If-None-Match`.

use axum::http::{HeaderMap, HeaderName, HeaderValue, StatusCode, header};
use axum::response::Response;

use super::parameters::invalid;
use crate::cache::command::Condition;
use crate::cache::etag::Tags;
use crate::deploy::fields::FieldProblem;
use crate::problem::Problem;

/// What one of the headers says; `None` without it.
pub(super) fn tags(headers: &HeaderMap, name: HeaderName) -> Result<Option<Tags>, Problem> {
    let mut values = headers.get_all(&name).iter();
    let Some(value) = values.next() else { return Ok(None) };
    let tags = value.to_str().ok().and_then(Tags::parse).filter(|_| values.next().is_none());
    let reason = "* or a list of tags in quotes is needed, such as \"17\"";
    tags.map(Some).ok_or_else(|| wrong(name.as_str(), reason))
}

/// What the headers of an item's change demand; `None`: what cannot be, for no version has such a tag.
pub(super) fn of_change(headers: &HeaderMap) -> Result<Option<Condition>, Problem> {
    let if_match = tags(headers, header::IF_MATCH)?;
    match (if_match, tags(headers, header::IF_NONE_MATCH)?) {
        (None, None) => Ok(Some(Condition::Always)),
        (Some(Tags::Any), None) => Ok(Some(Condition::Present)),
        (Some(tags), None) => match tags.versions().as_slice() {
            [] => Ok(None),
            [version] => Ok(Some(Condition::Version(*version))),
            _ => Err(wrong("if-match", "a change depends on one version")),
        },
        (None, Some(Tags::Any)) => Ok(Some(Condition::Absent)),
        (None, Some(_)) => Err(wrong("if-none-match", "only * has a meaning for a change")),
        (Some(_), Some(_)) => Err(wrong("if-none-match", "excludes if-match")),
    }
}

/// 400 for a header or parameter.
pub(super) fn wrong(name: &str, reason: &str) -> Problem {
    invalid(vec![FieldProblem { path: name.into(), reason: reason.into() }])
}

/// 412: what was demanded is not so.
pub(super) fn not_so(detail: &str) -> Problem {
    let status = StatusCode::PRECONDITION_FAILED;
    Problem::new(status, "precondition-failed", "Precondition failed", detail)
}

/// Puts a header that is text of our own.
pub(super) fn put(response: &mut Response, name: HeaderName, value: &str) {
    if let Ok(value) = HeaderValue::from_str(value) {
        response.headers_mut().insert(name, value);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_change_depends_on_one_version_on_none_or_on_nothing() {
        let of = |pairs: &[(HeaderName, &'static str)]| {
            let pairs = pairs.iter().map(|(name, v)| (name.clone(), HeaderValue::from_static(v)));
            of_change(&pairs.collect()).map_err(|problem| problem.fields[0].path.clone())
        };
        let (yes, no) = (header::IF_MATCH, header::IF_NONE_MATCH);
        assert_eq!(of(&[]), Ok(Some(Condition::Always)));
        assert_eq!(of(&[(yes.clone(), "*")]), Ok(Some(Condition::Present)));
        assert_eq!(of(&[(yes.clone(), "\"7\"")]), Ok(Some(Condition::Version(7))));
        assert_eq!(of(&[(yes.clone(), "W/\"7\", \"x\"")]), Ok(None));
        assert_eq!(of(&[(no.clone(), "*")]), Ok(Some(Condition::Absent)));
        for wrong in ["7", "\"7\", \"8\""] {
            assert_eq!(of(&[(yes.clone(), wrong)]), Err("if-match".into()), "{wrong}");
        }
        assert_eq!(of(&[(no.clone(), "\"7\"")]), Err("if-none-match".into()));
        assert_eq!(of(&[(yes, "*"), (no, "*")]), Err("if-none-match".into()));
    }
}
