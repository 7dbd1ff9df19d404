//! Aligned columns, as wide as what is in them and never wider than they may be.

use serde_json::Value;

use super::output::width;

/// Between two columns.
const GAP: usize = 2;

/// Narrower than this no column is made.
const COLUMN_MIN: usize = 6;

/// A header, and where in a row's document its cell stands (a JSON pointer).
pub type Columns<'a> = &'a [(&'a str, &'a str)];

/// Rows of the same length, the first of them headers, within the width that there is.
pub fn table(rows: &[Vec<String>]) -> String {
    fit(rows, width())
}

/// The first row.
pub fn headers(texts: &[&str]) -> Vec<String> {
    texts.iter().map(|text| (*text).to_owned()).collect()
}

/// A row a document; nothing where there is none.
pub fn list(documents: &[Value], columns: Columns<'_>) -> String {
    if documents.is_empty() {
        return String::new();
    }
    let mut rows = vec![columns.iter().map(|(header, _)| (*header).to_owned()).collect()];
    for document in documents {
        let cells = columns.iter();
        rows.push(cells.map(|(_, at)| document.pointer(at).map_or("-".into(), cell)).collect());
    }
    table(&rows)
}

/// The list at a field of a document.
pub fn rows_of<'a>(document: &'a Value, field: &str) -> &'a [Value] {
    document[field].as_array().map_or(&[], Vec::as_slice)
}

/// A value in one cell.
pub fn cell(value: &Value) -> String {
    match value {
        Value::Null => "-".into(),
        Value::String(text) if text.is_empty() => "-".into(),
        Value::String(text) => text.clone(),
        Value::Bool(true) => "yes".into(),
        Value::Bool(false) => "no".into(),
        Value::Number(number) => match number.as_f64() {
            Some(float) if number.is_f64() => format!("{}", (float * 1e6).round() / 1e6),
            _ => number.to_string(),
        },
        Value::Array(items) if items.is_empty() => "-".into(),
        Value::Array(items) if items.iter().all(|item| !item.is_object() && !item.is_array()) => {
            items.iter().map(cell).collect::<Vec<_>>().join(",")
        }
        Value::Array(items) => format!("{} entries", items.len()),
        Value::Object(_) => value.to_string(),
    }
}

/// The same within so many columns.
pub fn fit(rows: &[Vec<String>], width: usize) -> String {
    let count = rows.iter().map(Vec::len).max().unwrap_or(0);
    // What comes from elsewhere moves no cursor.
    let clean = |text: &String| -> String {
        text.chars().map(|c| if c.is_control() { ' ' } else { c }).collect()
    };
    let rows: Vec<Vec<String>> = rows.iter().map(|row| row.iter().map(clean).collect()).collect();
    let longest = |column: usize| {
        rows.iter().filter_map(|row| row.get(column)).map(|cell| cell.chars().count()).max()
    };
    let mut widths: Vec<usize> = (0..count).map(|column| longest(column).unwrap_or(0)).collect();
    let room = width.saturating_sub(GAP * count.saturating_sub(1));
    while widths.iter().sum::<usize>() > room {
        let Some(widest) = widths.iter_mut().max() else { break };
        if *widest <= COLUMN_MIN {
            break;
        }
        *widest -= 1;
    }
    let mut text = String::new();
    for row in &rows {
        let cells = row.iter().zip(&widths).map(|(cell, &width)| {
            let cell = cut(cell, width);
            format!("{cell:<width$}")
        });
        let line = cells.collect::<Vec<_>>().join(&" ".repeat(GAP));
        text += cut(line.trim_end(), width.max(COLUMN_MIN)).trim_end();
        text.push('\n');
    }
    text
}

fn cut(text: &str, width: usize) -> String {
    if text.chars().count() <= width {
        return text.to_owned();
    }
    text.chars().take(width.saturating_sub(1)).chain(['…']).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rows(texts: &[&[&str]]) -> Vec<Vec<String>> {
        texts.iter().map(|row| row.iter().map(|cell| (*cell).to_owned()).collect()).collect()
    }

    #[test]
    fn columns_are_as_wide_as_their_cells_and_the_widest_gives_way() {
        let rows = rows(&[
            &["NODE", "STATE", "REASON"],
            &["ny4-1", "failed", "the supervisor did not answer within half a second\u{1b}[2J"],
            &["n", "active", "-"],
        ]);
        assert_eq!(
            fit(&rows, 40),
            "NODE   STATE   REASON\n\
             ny4-1  failed  the supervisor did not a…\n\
             n      active  -\n"
        );
        for width in 1..200 {
            let longest = fit(&rows, width).lines().map(|line| line.chars().count()).max();
            assert!(longest.unwrap() <= width.max(COLUMN_MIN), "{width}");
        }
        assert_eq!(fit(&[], 40), "");
    }

    #[test]
    fn a_cell_is_what_its_value_is() {
        let document = serde_json::json!({
            "a": 1.5, "b": null, "c": true, "d": ["x", 2], "e": [{"f": 1}], "g": {"h": "i"}
        });
        let columns =
            [("A", "/a"), ("B", "/b"), ("C", "/c"), ("D", "/d"), ("E", "/e"), ("H", "/g/h")];
        assert_eq!(
            list(&[document], &columns),
            "A    B  C    D    E          H\n1.5  -  yes  x,2  1 entries  i\n"
        );
        assert_eq!(list(&[], &columns), "");
    }
}
