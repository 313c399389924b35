//! What the journal says as rows of tables: for Postgres, for exports and for reports.
//!
//! Invariant: a pure function of the journal from its beginning, or from a place whose state was kept
//! ([`Projector::save`]): the same records give the same rows, whatever the batches and however often it was
//! restarted between. No row is made of a clock. Every row names the journal and the record it comes from.
//! Hostile records make at worst strange rows: nothing here panics, and memory is bounded by the run's own
//! instruments and cycles.
//!
//! Not here: databases, files (`crate::postgres`), what a run's numbers mean (`crate::run`).

mod books;
mod orders;
mod projector;
mod tables;
mod told;

use serde_json::Value as Json;
use tandem_core::units::Decimal;

pub use projector::{Projector, StateError};
pub use tables::Table;

/// What a column holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Type {
    /// Yes or no.
    Bool,
    /// 16 bits.
    Int2,
    /// 32 bits.
    Int4,
    /// 64 bits.
    Int8,
    /// Text.
    Text,
    /// 128 bits that name something.
    Uuid,
    /// Exact decimals.
    Numeric,
    /// A moment, UTC.
    Time,
    /// A day, UTC.
    Date,
    /// JSON.
    Json,
}

/// How a column of a row that is told again becomes one with what is there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Merge {
    /// It says which row it is.
    Key,
    /// What was told first stays.
    First,
    /// What was told last holds.
    Last,
    /// It is added.
    Sum,
}

/// A column.
#[derive(Clone, Copy, Debug)]
pub struct Column {
    /// Its name.
    pub name: &'static str,
    /// What it holds.
    pub kind: Type,
    /// Whether it may be empty.
    pub nullable: bool,
    /// How it is told again.
    pub merge: Merge,
}

/// A value.
#[derive(Clone, Debug, PartialEq)]
pub enum Value {
    /// Nothing.
    Null,
    /// Yes or no.
    Bool(bool),
    /// 16 bits.
    Int2(i16),
    /// 32 bits.
    Int4(i32),
    /// 64 bits.
    Int8(i64),
    /// Text.
    Text(String),
    /// A name of 128 bits.
    Uuid(u128),
    /// `quanta` times 10^-`exponent`.
    Numeric {
        /// How many quanta.
        quanta: i128,
        /// Decimals of one.
        exponent: u8,
    },
    /// A moment, UNIX ns; databases keep the microsecond below it.
    Time(i64),
    /// Days since 1970-01-01.
    Date(i32),
    /// JSON text.
    Json(String),
}

impl Value {
    /// Returns text.
    #[must_use]
    pub fn text(text: &str) -> Value {
        Value::Text(text.to_owned())
    }

    /// Returns a whole number without decimals.
    #[must_use]
    pub const fn whole(number: u64) -> Value {
        Value::Numeric { quanta: number as i128, exponent: 0 }
    }

    /// Returns an amount.
    #[must_use]
    pub fn amount(quanta: i64, exponent: u8) -> Value {
        Value::Numeric { quanta: i128::from(quanta), exponent }
    }

    /// Returns whether a column of this kind may hold it.
    #[must_use]
    pub const fn is(&self, kind: Type) -> bool {
        matches!(
            (self, kind),
            (Value::Null, _)
                | (Value::Bool(_), Type::Bool)
                | (Value::Int2(_), Type::Int2)
                | (Value::Int4(_), Type::Int4)
                | (Value::Int8(_), Type::Int8)
                | (Value::Text(_), Type::Text)
                | (Value::Uuid(_), Type::Uuid)
                | (Value::Numeric { .. }, Type::Numeric)
                | (Value::Time(_), Type::Time)
                | (Value::Date(_), Type::Date)
                | (Value::Json(_), Type::Json)
        )
    }

    /// Returns it as JSON: numbers that JSON would round are text.
    #[must_use]
    pub fn json(&self) -> Json {
        match self {
            Value::Null => Json::Null,
            Value::Bool(yes) => Json::from(*yes),
            Value::Int2(number) => Json::from(*number),
            Value::Int4(number) => Json::from(*number),
            Value::Int8(number) | Value::Time(number) => Json::from(number.to_string()),
            Value::Date(day) => Json::from(*day),
            Value::Text(text) | Value::Json(text) => Json::from(text.as_str()),
            Value::Uuid(name) => Json::from(format!("{name:032x}")),
            Value::Numeric { quanta, exponent } => match i64::try_from(*quanta) {
                Ok(quanta) => Json::from(Decimal { quanta, exponent: *exponent }.to_string()),
                Err(_) => Json::from(format!("{quanta}e-{exponent}")),
            },
        }
    }

    /// Adds another one; what is no number, or does not fit, becomes what was told last.
    fn plus(&self, other: Value) -> Value {
        match (self, other) {
            (old, Value::Null) => old.clone(),
            (Value::Int8(a), Value::Int8(b)) => Value::Int8(a.saturating_add(b)),
            (Value::Numeric { quanta, exponent }, Value::Numeric { quanta: b, exponent: e })
                if *exponent == e =>
            {
                Value::Numeric { quanta: quanta.saturating_add(b), exponent: e }
            }
            (_, told) => told,
        }
    }
}

/// A row.
#[derive(Clone, Debug, PartialEq)]
pub struct Row {
    /// Of which table.
    pub table: Table,
    /// Sequence of the record it comes from.
    pub seq: u64,
    /// Values, one a column.
    pub values: Vec<Value>,
}

impl Row {
    /// Returns a row of which nothing is told yet.
    #[must_use]
    pub fn empty(table: Table, seq: u64) -> Row {
        Row { table, seq, values: vec![Value::Null; table.columns().len()] }
    }

    /// Tells a column; a name that the table does not have is nobody's.
    #[must_use]
    pub fn with(mut self, column: &str, value: Value) -> Row {
        let found = self.table.columns().iter().position(|known| known.name == column);
        debug_assert!(found.is_some(), "{} has no {column}", self.table.name());
        if let Some(place) = found {
            self.values[place] = value;
        }
        self
    }

    /// Returns a column's value.
    #[must_use]
    pub fn get(&self, column: &str) -> Option<&Value> {
        let place = self.table.columns().iter().position(|known| known.name == column)?;
        self.values.get(place)
    }

    /// Takes in what a later row of the same key tells.
    pub fn merge(&mut self, later: Row) {
        let columns = self.table.columns();
        for ((old, new), column) in self.values.iter_mut().zip(later.values).zip(columns) {
            match column.merge {
                Merge::Key => {}
                Merge::First if *old == Value::Null => *old = new,
                Merge::First => {}
                Merge::Last if new != Value::Null => *old = new,
                Merge::Last => {}
                Merge::Sum => *old = old.plus(new),
            }
        }
        self.seq = self.seq.max(later.seq);
    }

    /// Returns what says which row it is, as text: rows of a table with equal keys are the same row.
    #[must_use]
    pub fn key(&self) -> String {
        let mut key = String::new();
        for (value, column) in self.values.iter().zip(self.table.columns()) {
            if column.merge == Merge::Key {
                // Lengths stand before texts, so that no two keys are spelt alike.
                let text = match value {
                    Value::Text(text) => format!("{}:{text}", text.len()),
                    other => format!("{other:?}"),
                };
                key.push_str(&text);
                key.push('/');
            }
        }
        key
    }

    /// Returns the row as JSON: column to value.
    #[must_use]
    pub fn json(&self) -> Json {
        let columns = self.table.columns().iter().zip(&self.values);
        Json::Object(columns.map(|(c, value)| (c.name.to_owned(), value.json())).collect())
    }
}
