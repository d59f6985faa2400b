//! The table of reasons says what the annotations in `errors.proto` say.

use millstream_proto::{DESCRIPTORS, reasons::TABLE};
use prost_reflect::{DescriptorPool, Value};

#[test]
fn table_equals_annotations() {
    let pool = DescriptorPool::decode(DESCRIPTORS).expect("descriptors decode");
    let reasons = pool.get_enum_by_name("millstream.v1.ErrorReason").expect("the enum exists");
    let traits = pool.get_extension_by_name("millstream.v1.traits").expect("the option exists");
    let annotated: Vec<_> = reasons.values().filter(|value| value.number() != 0).collect();
    assert_eq!(annotated.len(), TABLE.len(), "every reason has a row");

    for (value, row) in annotated.iter().zip(TABLE) {
        assert_eq!(value.number(), row.reason as i32);
        assert_eq!(value.name().strip_prefix("ERROR_REASON_"), Some(row.name));
        let options = value.options();
        let option = options.get_extension(&traits);
        let Value::Message(message) = &*option else { panic!("{} has no traits", row.name) };
        let get = |name: &str| message.get_field_by_name(name).expect("field exists").into_owned();
        assert_eq!(get("code"), Value::U32(row.code as u32), "{}", row.name);
        assert_eq!(get("retryable"), Value::Bool(row.retryable), "{}", row.name);
        assert_eq!(get("no_side_effects"), Value::Bool(row.no_side_effects), "{}", row.name);
    }
}
