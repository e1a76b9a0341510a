//! Buckets of the store on loopback: how a destination writes to one, and what lies there, as the names of objects and
//! their rows tell of it.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};

use parquet::file::reader::{FileReader, SerializedFileReader};
use parquet::record::{Field, Row};
use rand::rngs::SmallRng;
use rand::{RngExt, SeedableRng};
use serde_json::{Map, Value, json};

use super::store::{Act, KEYS, Seen, Store, error};

/// The lines of a destination's table that make it write to this bucket.
pub(crate) fn settings(store: &Store, bucket: &str) -> String {
    format!(
        "type = \"s3\"\nbucket = \"{bucket}\"\nendpoint = \"http://{}\"\npath_style = true\n\
         access_key_id = \"{}\"\nsecret_access_key = \"{}\"\n",
        store.addr, KEYS.0, KEYS.1
    )
}

/// Mostly well, until it is `calm`; now and then an answer that is lost, a pause that is asked for, a connection that ends
/// in the body.
pub(crate) fn flaky(seed: u64, calm: Arc<AtomicBool>) -> impl Fn(&Seen) -> Act + Send + Sync {
    let rng = Mutex::new(SmallRng::seed_from_u64(seed));
    move |_| match rng.lock().unwrap().random_range(0..100) {
        _ if calm.load(Ordering::SeqCst) => Act::Pass,
        0..3 => Act::Answer(error(503, "SlowDown", &[])),
        3..6 => Act::Lose(error(500, "InternalError", &[])),
        6..9 => Act::Hush,
        9..12 => Act::Cut,
        12 => Act::Answer(error(409, "ConditionalRequestConflict", &[])),
        _ => Act::Pass,
    }
}

/// An object, as its name and its lines tell of it.
pub(crate) struct Object {
    pub(crate) path: PathBuf,
    first: u64,
    last: u64,
    /// Its rows in the shape of a file destination's lines.
    pub(crate) lines: Vec<Value>,
}

/// The objects of a bucket, by name.
pub(crate) fn objects(bucket: &Path) -> Vec<Object> {
    let (mut found, mut open) = (Vec::new(), vec![bucket.to_owned()]);
    while let Some(dir) = open.pop() {
        for entry in fs::read_dir(dir).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                open.push(path);
                continue;
            }
            let name = path.file_name().unwrap().to_str().unwrap();
            let mut numbers = name.splitn(3, '-').map(|part| part.parse::<u64>());
            let (first, last) = (numbers.next().unwrap().unwrap(), numbers.next().unwrap().unwrap());
            let lines = match fs::read(&path).unwrap() {
                columns if name.ends_with(".parquet") => from_columns(columns, first),
                packed if name.ends_with(".zst") => lines(&zstd::decode_all(&packed[..]).expect("an object is whole")),
                text => lines(&text),
            };
            found.push(Object { path, first, last, lines });
        }
    }
    found.sort_by_key(|object| object.first);
    found
}

/// No object overlaps another, none is missing between them, and each holds what it is called after.
pub(crate) fn side_by_side(objects: &[Object]) {
    let mut next = 0;
    for object in objects {
        let name = object.path.display();
        assert_eq!(object.first, next, "{name} begins where the one before it ends");
        next = object.last + 1;
        let offsets: Vec<u64> = object.lines.iter().map(offset).collect();
        assert_eq!(offsets, (object.first..next).collect::<Vec<_>>(), "{name} holds what it is called after");
    }
}

fn lines(text: &[u8]) -> Vec<Value> {
    text.split_inclusive(|byte| *byte == b'\n').map(|line| serde_json::from_slice(line).unwrap()).collect()
}

/// Columns as lines. They have no id, so each row gets its place in the object for one; nor the environment's name and the
/// mode, which all rows of these tests share.
fn from_columns(object: Vec<u8>, first: u64) -> Vec<Value> {
    let reader = SerializedFileReader::new(bytes::Bytes::from(object)).expect("an object is whole");
    let rows = reader.get_row_iter(None).unwrap().zip(first..);
    rows.map(|(row, offset)| from_row(&row.unwrap(), offset)).collect()
}

fn from_row(row: &Row, offset: u64) -> Value {
    let value = |field: &Field| match field {
        Field::Str(text) => text.as_str().into(),
        Field::Long(number) => (*number).into(),
        Field::Null => Value::Null,
        other => panic!("no column of ours holds {other:?}"),
    };
    let mut row: Map<String, Value> = row.get_column_iter().map(|(name, field)| (name.clone(), value(field))).collect();
    let mut take = |name: &str| row.remove(name).unwrap_or_else(|| panic!("no column {name}"));
    let mut line = json!({
        "id": format!("row-{offset}"), "environmentName": "production", "impressionsMode": "DEBUG",
        "split": take("splitName"), "splitVersionNumber": take("splitVersion"), "time": take("timestamp"),
        "receivedTime": take("receptionTimestamp"),
    });
    assert_eq!((take("properties"), take("trafficTypeId")), ("".into(), "".into()), "none was given");
    line.as_object_mut().expect("it is one").extend(row);
    line
}

fn offset(line: &Value) -> u64 {
    line["id"].as_str().and_then(|id| id.rsplit('-').next()?.parse().ok()).expect("an id ends in an offset")
}
