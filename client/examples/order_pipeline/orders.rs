//! The orders.

use std::path::Path;

use millstream_client::Entry;
use serde_json::Value;

use crate::Outcome;

/// An order as it is appended.
#[derive(Debug, Clone)]
pub(crate) struct Order {
    /// Its `order_id`.
    pub(crate) id: String,
    /// The whole order, as the line of the file.
    pub(crate) json: String,
}

/// Reads one order a line.
pub(crate) fn load(path: &Path) -> Outcome<Vec<Order>> {
    let text = std::fs::read_to_string(path).map_err(|error| format!("{}: {error}", path.display()))?;
    text.lines().map(|json| Ok(Order { id: check(json.as_bytes())?, json: json.to_owned() })).collect()
}

/// The order in an entry: its id.
pub(crate) fn parse(entry: &Entry) -> Outcome<String> {
    let (Some(id), Some(json)) = (entry.get("order_id"), entry.get("order")) else {
        return Err(format!("entry {} is no order", entry.id).into());
    };
    let inner = check(json)?;
    if inner.as_bytes() != id { Err(format!("entry {} holds another order", entry.id).into()) } else { Ok(inner) }
}

/// Checks that an order adds up, and returns its id.
fn check(json: &[u8]) -> Outcome<String> {
    let order: Value = serde_json::from_slice(json)?;
    let items = order["items"].as_array().ok_or("an order without items")?;
    let cost = |item: &Value| Some(item["quantity"].as_u64()? * item["unit_cents"].as_u64()?);
    let total: Option<u64> = items.iter().map(cost).sum();
    let id = order["order_id"].as_str().ok_or("an order without id")?;
    if total.is_some() && total == order["total_cents"].as_u64() {
        Ok(id.to_owned())
    } else {
        Err(format!("order {id} does not add up").into())
    }
}
