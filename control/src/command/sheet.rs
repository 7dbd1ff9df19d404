//! Any document for people: a line a value, a table for each list of objects.

use serde_json::Value;

use super::table::{cell, table};

/// Columns of such a table at most; the rest is for `--json`.
const COLUMNS_MAX: usize = 14;

/// Levels of objects that are opened; what lies deeper stands as JSON.
const DEPTH_MAX: usize = 4;

/// The whole of it.
pub fn sheet(document: &Value) -> String {
    let (mut lines, mut tables) = (Vec::new(), String::new());
    match document {
        Value::Array(items) => tables += &listed(items),
        Value::Object(_) => walk(document, "", 0, &mut lines, &mut tables),
        other => return cell(other) + "\n",
    }
    let text = table(&lines);
    let between = if !text.is_empty() && !tables.is_empty() { "\n" } else { "" };
    text + between + tables.trim_start_matches('\n')
}

fn walk(
    value: &Value,
    path: &str,
    depth: usize,
    lines: &mut Vec<Vec<String>>,
    tables: &mut String,
) {
    let Some(object) = value.as_object() else { return };
    for (key, value) in object {
        let path = if path.is_empty() { key.clone() } else { format!("{path}.{key}") };
        match value {
            Value::Object(_) if depth < DEPTH_MAX => walk(value, &path, depth + 1, lines, tables),
            Value::Array(items) if items.iter().any(Value::is_object) => {
                let title: String = path.chars().filter(|c| !c.is_control()).collect();
                *tables += &format!("\n{title}\n{}", listed(items));
            }
            value => lines.push(vec![path, cell(value)]),
        }
    }
}

/// Objects as rows: their simple values, in the order in which they are met.
fn listed(items: &[Value]) -> String {
    let mut columns: Vec<&str> = Vec::new();
    for item in items.iter().filter_map(Value::as_object) {
        for (key, value) in item {
            if !value.is_object() && !columns.contains(&key.as_str()) && columns.len() < COLUMNS_MAX
            {
                columns.push(key);
            }
        }
    }
    if columns.is_empty() {
        return items.iter().map(|item| cell(item) + "\n").collect();
    }
    let mut rows = vec![columns.iter().map(|column| column.to_uppercase()).collect::<Vec<_>>()];
    for item in items {
        rows.push(columns.iter().map(|column| cell(&item[*column])).collect());
    }
    table(&rows)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_document_nobody_described_is_readable() {
        let document = serde_json::json!({
            "region_id": "ny4",
            "summary": {"p99_us": 41.5, "trend": "flat"},
            "nodes": [{"node_id": "a", "healthy": true}, {"node_id": "b", "load": 2}],
            "tags": ["x", "y"],
        });
        assert_eq!(
            sheet(&document),
            "region_id       ny4\n\
             summary.p99_us  41.5\n\
             summary.trend   flat\n\
             tags            x,y\n\
             \n\
             nodes\n\
             HEALTHY  NODE_ID  LOAD\n\
             yes      a        -\n\
             -        b        2\n"
        );
        assert_eq!(sheet(&serde_json::json!([{"id": 1}])), "ID\n1\n");
        assert_eq!(sheet(&serde_json::json!("ok")), "ok\n");
    }
}
