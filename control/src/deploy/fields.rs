//! Reads a JSON object field by field and remembers everything that is wrong with it, by path.

use serde::Serialize;
use serde_json::{Map, Value};
use utoipa::ToSchema;

/// One thing wrong with a document.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, ToSchema)]
pub struct FieldProblem {
    /// Path of the field, such as `nodes[3].cpu_cores`.
    pub path: String,
    /// What is wrong and what would be right.
    pub reason: String,
}

/// An object being read. What is wrong goes to the list; the caller goes on and asks at the end.
pub struct Fields<'a> {
    object: &'a Map<String, Value>,
    path: String,
    known: Vec<&'static str>,
    problems: &'a mut Vec<FieldProblem>,
}

impl<'a> Fields<'a> {
    /// Begins with `value`, found at `path`; none, and a problem, if it is no object.
    pub fn of(value: &'a Value, path: &str, problems: &'a mut Vec<FieldProblem>) -> Option<Self> {
        let Some(object) = value.as_object() else {
            let reason = "an object is needed".into();
            problems.push(FieldProblem { path: path.into(), reason });
            return None;
        };
        Some(Self { object, path: path.into(), known: Vec::new(), problems })
    }

    /// The path of a field.
    pub fn path(&self, field: &str) -> String {
        if self.path.is_empty() { field.into() } else { format!("{}.{field}", self.path) }
    }

    /// Notes something wrong with a field.
    pub fn refuse(&mut self, field: &str, reason: impl Into<String>) {
        let path = self.path(field);
        self.problems.push(FieldProblem { path, reason: reason.into() });
    }

    /// The list itself, for parts that are read on their own.
    pub fn problems(&mut self) -> &mut Vec<FieldProblem> {
        self.problems
    }

    /// A field as it stands; absent and null are none.
    pub fn optional(&mut self, field: &'static str) -> Option<&'a Value> {
        self.known.push(field);
        self.object.get(field).filter(|value| !value.is_null())
    }

    /// A field that has to be there.
    pub fn value(&mut self, field: &'static str) -> Option<&'a Value> {
        let value = self.optional(field);
        if value.is_none() {
            self.refuse(field, "is missing");
        }
        value
    }

    /// Text.
    pub fn text(&mut self, field: &'static str) -> Option<&'a str> {
        let value = self.value(field)?;
        if value.as_str().is_none() {
            self.refuse(field, "text is needed");
        }
        value.as_str()
    }

    /// A whole number within bounds, both included.
    pub fn number(&mut self, field: &'static str, min: u64, max: u64) -> Option<u64> {
        let value = self.value(field)?;
        let number = value.as_u64().filter(|number| (min..=max).contains(number));
        if number.is_none() {
            self.refuse(
                field,
                format!("a whole number from {min} to {max} is needed, not {value}"),
            );
        }
        number
    }

    /// The same, or `default` where it is left out.
    pub fn number_or(&mut self, field: &'static str, min: u64, max: u64, default: u64) -> u64 {
        match self.optional(field) {
            None => default,
            Some(_) => self.number(field, min, max).unwrap_or(default),
        }
    }

    /// True or false.
    pub fn boolean(&mut self, field: &'static str) -> Option<bool> {
        let value = self.value(field)?;
        if value.as_bool().is_none() {
            self.refuse(field, "true or false is needed");
        }
        value.as_bool()
    }

    /// One of an enum's spellings.
    pub fn spelled<T: Copy>(
        &mut self,
        field: &'static str,
        all: &[T],
        spelled: fn(&str) -> Option<T>,
        name: fn(T) -> &'static str,
    ) -> Option<T> {
        let text = self.text(field)?;
        let found = spelled(text);
        if found.is_none() {
            let names: Vec<&str> = all.iter().map(|value| name(*value)).collect();
            self.refuse(field, format!("{text:?} is none of {}", names.join(", ")));
        }
        found
    }

    /// Notes every field that nobody asked for.
    pub fn finish(mut self) {
        let (object, known) = (self.object, std::mem::take(&mut self.known));
        for field in object.keys().filter(|field| !known.contains(&field.as_str())) {
            let field: String = field.chars().filter(|c| !c.is_control()).take(80).collect();
            self.refuse(&field, "is unknown");
        }
    }
}
