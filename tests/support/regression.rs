//! A logistic regression: the baseline of tests that compare with a simple model.

use intentcast::metrics::auc;

/// Fits the weights of a logistic regression on standardised columns by gradient descent.
fn fit(x: &[Vec<f64>], y: &[bool]) -> Vec<f64> {
    let mut w = vec![0.0; x[0].len() + 1];
    for _ in 0..400 {
        let mut gradient = vec![0.0; w.len()];
        for (row, &label) in x.iter().zip(y) {
            let miss = 1.0 / (1.0 + (-score(&w, row)).exp()) - f64::from(u8::from(label));
            gradient[0] += miss;
            gradient[1..].iter_mut().zip(row).for_each(|(g, v)| *g += miss * v);
        }
        w.iter_mut().zip(&gradient).for_each(|(w, g)| *w -= 1.0 * g / x.len() as f64);
    }
    w
}

fn score(w: &[f64], row: &[f64]) -> f64 {
    w[0] + w[1..].iter().zip(row).map(|(a, b)| a * b).sum::<f64>()
}

/// Returns the AUC of a logistic regression in sample, which flatters the columns.
pub fn auc_in_sample(mut x: Vec<Vec<f64>>, y: &[bool]) -> f64 {
    for c in 0..x[0].len() {
        let mean = x.iter().map(|r| r[c]).sum::<f64>() / x.len() as f64;
        let deviation = (x.iter().map(|r| (r[c] - mean).powi(2)).sum::<f64>() / x.len() as f64).sqrt().max(1e-9);
        x.iter_mut().for_each(|r| r[c] = (r[c] - mean) / deviation);
    }
    let w = fit(&x, y);
    auc(&x.iter().map(|r| score(&w, r)).collect::<Vec<_>>(), y).unwrap()
}
