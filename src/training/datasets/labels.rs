//! Labels of a user: their columns, in the order of the intent network's outputs.

use crate::model::intent::CHURN;

pub const LABELS: [&str; 9] =
    ["y_view", "y_search", "y_favorite", "y_cart", "y_purchase", "y_review", "y_churn", "y_units", "y_spend"];

/// Index of the purchase label in [`LABELS`].
pub const PURCHASE: usize = 4;

/// Number of binary labels: the intents and churn.
pub const BINARY: usize = CHURN as usize + 1;
