//! Publishers' files, in rows written by hand, through the command line into a lake and a count.

use std::io::Write;
use std::process::Command;

fn import(name: &str, files: &[(&str, &[u8])], query: &str) -> (String, String) {
    let own = tempfile::tempdir().unwrap();
    let to = own.path().join("lake").display().to_string();
    let mut command = Command::new(env!("CARGO_BIN_EXE_intentcast"));
    command.args(["import", name]);
    for (file, bytes) in files {
        std::fs::write(own.path().join(file), bytes).unwrap();
        command.arg(own.path().join(file));
    }
    let output = command.args(["--to", &to]).output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let mut sql = Command::new(env!("CARGO_BIN_EXE_intentcast"));
    sql.args(["--set", "lake.arrival=none", "sql", "--lake", &to, "--format", "csv", "-c", query]);
    let rows = sql.output().unwrap();
    assert!(rows.status.success(), "{}", String::from_utf8_lossy(&rows.stderr));
    (String::from_utf8(output.stdout).unwrap(), String::from_utf8(rows.stdout).unwrap())
}

const EVENTS: &str =
    "SELECT user_id, session_id, ts, event_type, item_id, quantity, price FROM events ORDER BY ts, item_id";

#[test]
fn taobao_counts_its_cut_line_and_keeps_the_beijing_instant() {
    let text = b"1,22,33,pv,1511544070\n1,22,33,buy,1511544071\n2,23,33,cart\n";
    let (report, rows) = import("taobao", &[("UserBehavior.csv", text)], EVENTS);
    assert!(report.contains("3 rows read, 2 events") && report.contains("left out: 1 rows: no 4"), "{report}");
    assert!(report.contains("Asia/Shanghai"));
    assert_eq!(rows.lines().nth(1).unwrap(), "1,,2017-11-24T17:21:10,view,22,,");
}

#[test]
fn order_lines_keep_returns_guests_and_uk_time_also_packed() {
    let text = "Invoice,StockCode,Description,Quantity,InvoiceDate,Price,Customer ID,Country\n\
                C1,A,MUG,-2,2010-07-01 09:00:00,3.5,13085.0,United Kingdom\n\
                2,A,MUG RED,1,2010-07-01 09:01:00,3.5,,United Kingdom\n\
                3,A,MUG RED,1,2010-07-01 09:02:00,0.0,7,\"Channel\nIslands\"\n";
    let mut gz = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::default());
    gz.write_all(text.as_bytes()).unwrap();
    let packed = [("a.csv.gz", gz.finish().unwrap()), ("b.csv.zst", zstd::encode_all(text.as_bytes(), 1).unwrap())];
    for (name, bytes) in &packed {
        let (report, rows) = import("online-retail-ii", &[(name, bytes)], EVENTS);
        assert!(report.contains("3 rows read, 3 events"), "{report}");
        assert_eq!(
            rows.lines().skip(1).collect::<Vec<_>>(),
            [
                "13085,C1,2010-07-01T08:00:00,purchase,A,-2,3.5",
                ",2,2010-07-01T08:01:00,purchase,A,1,3.5",
                "7,3,2010-07-01T08:02:00,purchase,A,1,0.0"
            ]
        );
        let (_, titles) = import("online-retail-ii", &[(name, bytes)], "SELECT item_id, title FROM items");
        assert_eq!(titles, "item_id,title\nA,MUG RED\n");
    }
}

#[test]
fn cdnow_tmall_retailrocket_rees46_journey_and_reviews() {
    let (_, rows) =
        import("cdnow", &[("m.txt", b" 00001 19970101  2   11.00\n 00001 0009 19970102  1   5.00\n")], EVENTS);
    assert!(rows.contains("00001,,1997-01-01T00:00:00,purchase,cd,2,5.5"), "{rows}");
    let tmall = b"user_id,brand_id,type,visit_datetime\n1,2,0,6-4\n1,2,0,6-4\n";
    let (_, rows) = import("tmall", &[("t.csv", tmall)], EVENTS);
    assert_eq!(rows.matches("1,,2014-06-04T00:00:00,click,2,,").count(), 2, "{rows}");
    let rocket = b"timestamp,visitorid,event,itemid,transactionid\n1433193132535,9,addtocart,7,\n";
    let (_, rows) = import("retailrocket", &[("r.csv", rocket)], EVENTS);
    assert!(rows.contains("9,,2015-06-01T21:12:12.535,cart,7,,"), "{rows}");
    let rees = b"event_time,event_type,product_id,category_id,category_code,brand,price,user_id,user_session\n\
                 2019-10-01 00:00:00 UTC,view,5,1,a.b,acme,1.25,3,s\n";
    let (_, rows) = import(
        "rees46",
        &[("r.csv", rees)],
        "SELECT e.price, i.category, i.brand FROM events e JOIN items i ON e.item_id = i.item_id",
    );
    assert!(rows.contains("1.25,a/b,acme"), "{rows}");
    let lines = b"household_id,store_id,basket_id,product_id,quantity,sales_value,week,transaction_timestamp\n1,1,2,3,2.0,5.0,1,2017-01-01 12:30:27\n";
    let products = b"product_id,department,product_category,product_type,brand\n3,D,C,T,National\n";
    let (_, rows) = import(
        "complete-journey",
        &[("t.csv", lines), ("p.csv", products)],
        "SELECT e.price, i.category FROM events e JOIN items i ON e.item_id = i.item_id",
    );
    assert!(rows.contains("2.5,D/C/T"), "{rows}");
    let reviews =
        br#"{"overall": 4.0, "reviewerID": "R", "asin": "B", "unixReviewTime": 1370000000, "reviewText": "fine"}"#;
    let (_, rows) =
        import("amazon-all-beauty", &[("r.json", reviews)], "SELECT user_id, event_type, rating, text FROM events");
    assert!(rows.contains("R,review,4,fine"), "{rows}");
}

#[test]
fn a_wrong_set_is_refused() {
    let own = tempfile::tempdir().unwrap();
    let file = own.path().join("x.csv");
    std::fs::write(&file, "a,b\n1,2\n3,4\n").unwrap();
    for (name, code) in [("rees46", 3), ("nonsense", 2)] {
        let mut command = Command::new(env!("CARGO_BIN_EXE_intentcast"));
        let status =
            command.args(["import", name]).arg(&file).arg("--to").arg(own.path().join("lake")).status().unwrap();
        assert_eq!(status.code(), Some(code));
    }
}

#[test]
fn a_packed_file_that_ends_in_the_middle_is_refused_by_name() {
    let own = tempfile::tempdir().unwrap();
    let rows: String =
        (0..20_000).map(|i| format!("{i},{},{},pv,{}\n", i * 7919 % 5003, i % 37, 1_511_544_070 + i)).collect();
    let packed = zstd::encode_all(rows.as_bytes(), 1).unwrap();
    let file = own.path().join("UserBehavior.csv.zst");
    std::fs::write(&file, &packed[..packed.len() / 2]).unwrap();
    let mut command = Command::new(env!("CARGO_BIN_EXE_intentcast"));
    let output =
        command.args(["import", "taobao"]).arg(&file).arg("--to").arg(own.path().join("lake")).output().unwrap();
    assert_eq!(output.status.code(), Some(3));
    assert!(String::from_utf8_lossy(&output.stderr).contains(file.to_str().unwrap()));
}
