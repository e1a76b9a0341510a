//! How much of the log letters may take.

use super::*;

#[tokio::test]
async fn letters_of_an_upstream_have_an_eighth_of_its_share_and_those_of_others_no_bound() {
    let house = start(&MemDisk::default(), file(&[])).await;
    let share = |bytes: &str| format!("{}max_bytes = \"{bytes}\"\n", upstream("split"));
    let room = || house.letters.desk("split").room();
    house.operations.put_destination(share("80MiB"), Put::Create).await.unwrap();
    assert_eq!(room(), Some(10 << 20));
    house.operations.put_destination(share("160MiB"), Put::Update).await.unwrap();
    assert_eq!(room(), Some(20 << 20));
    house.operations.put_destination(hook("split", ""), Put::Update).await.unwrap();
    assert_eq!(room(), None);
}
