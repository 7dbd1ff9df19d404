//! The rows: each sets its sides up, measures halves, and takes everything down when dropped.

pub mod a1;
pub mod a2;
pub mod a3;
pub mod a4;
pub mod a5;
pub mod a6;
pub mod a7;
pub mod b1;
pub mod b3;
pub mod c1;
pub mod c2;
pub mod c3;
pub mod c4;
pub mod i1;
pub mod i2;

use crate::row::Row;
use crate::run::Bench;

/// Sets up a row. What it needs and does not find is an error that names it.
pub fn set_up(row: &Row, quick: bool) -> anyhow::Result<Box<dyn Bench>> {
    match row.id.as_str() {
        "A1" => Ok(Box::new(a1::A1::set_up(row, quick)?)),
        "A2" => Ok(Box::new(a2::A2::set_up(row, quick)?)),
        "A3" => Ok(Box::new(a3::A3::set_up(row, quick)?)),
        "A4" => Ok(Box::new(a4::A4::set_up(row, quick)?)),
        "A5" => Ok(Box::new(a5::A5::set_up(row, quick)?)),
        "A6" => Ok(Box::new(a6::A6::new(quick))),
        "A7" => Ok(Box::new(a7::A7::set_up(row, quick)?)),
        "B1" => Ok(Box::new(b1::B1::set_up(row, quick)?)),
        "B3" => Ok(Box::new(b3::B3::set_up(quick)?)),
        "C2" => Ok(Box::new(c2::C2::new(quick))),
        "C3" => Ok(Box::new(c3::C3::set_up(quick)?)),
        "C4" => Ok(Box::new(c4::C4::set_up()?)),
        "I1" => Ok(Box::new(i1::I1::set_up(quick)?)),
        "I2" => Ok(Box::new(i2::I2::new(quick))),
        "C1" => Ok(Box::new(c1::C1::set_up(quick)?)),
        other => anyhow::bail!("{other} is in rows.toml, but nothing measures it"),
    }
}
