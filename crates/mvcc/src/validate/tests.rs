use bytes::Bytes;
use quorate_proto::etcdserverpb::Compare;

use super::*;

fn op(request: Request) -> RequestOp {
    RequestOp {
        request: Some(request),
    }
}

fn put_op(key: &'static str) -> RequestOp {
    op(Request::RequestPut(PutRequest {
        key: key.into(),
        ..Default::default()
    }))
}

fn delete_op(key: &'static str, range_end: &'static str) -> RequestOp {
    op(Request::RequestDeleteRange(DeleteRangeRequest {
        key: key.into(),
        range_end: range_end.into(),
        ..Default::default()
    }))
}

fn nested(success: Vec<RequestOp>, failure: Vec<RequestOp>) -> RequestOp {
    op(Request::RequestTxn(TxnRequest {
        compare: Vec::new(),
        success,
        failure,
    }))
}

fn check(success: Vec<RequestOp>) -> Result<(), Error> {
    let request = TxnRequest {
        compare: Vec::new(),
        success: success.clone(),
        failure: Vec::new(),
    };
    let result = txn(&request, &Limits::default());
    // Both branches are checked alike.
    let swapped = TxnRequest {
        compare: Vec::new(),
        success: Vec::new(),
        failure: success,
    };
    assert_eq!(txn(&swapped, &Limits::default()).is_ok(), result.is_ok());
    result
}

fn assert_duplicate(success: Vec<RequestOp>) {
    assert!(matches!(check(success), Err(Error::DuplicateKey)));
}

#[test]
fn a_range_needs_a_key_before_its_sort_options_matter() {
    let bad_sort = RangeRequest {
        sort_order: 3,
        ..Default::default()
    };
    assert!(matches!(range(&bad_sort), Err(Error::EmptyKey)));
    let key = Bytes::from_static(b"k");
    for (sort_order, sort_target, ok) in [
        (0, 0, true),
        (2, 4, true),
        (3, 0, false),
        (-1, 0, false),
        (0, 5, false),
    ] {
        let request = RangeRequest {
            key: key.clone(),
            sort_order,
            sort_target,
            ..Default::default()
        };
        assert_eq!(range(&request).is_ok(), ok, "{sort_order} {sort_target}");
    }
}

#[test]
fn a_stream_refuses_orders_and_filters_but_not_the_target_alone() {
    let request = RangeRequest {
        key: "k".into(),
        ..Default::default()
    };
    assert!(range_stream(&request).is_ok());
    assert!(
        range_stream(&RangeRequest {
            sort_target: 3,
            ..request.clone()
        })
        .is_ok()
    );
    assert!(
        range_stream(&RangeRequest {
            sort_order: 1,
            ..request.clone()
        })
        .is_ok()
    );
    let sorted = RangeRequest {
        sort_order: 1,
        sort_target: 1,
        max_mod_revision: 3,
        ..request.clone()
    };
    assert!(matches!(range_stream(&sorted), Err(Error::StreamSortOrder)));
    assert!(matches!(
        range_stream(&RangeRequest {
            sort_order: 2,
            ..request.clone()
        }),
        Err(Error::StreamSortOrder)
    ));
    let filtered = RangeRequest {
        min_create_revision: -1,
        ..request
    };
    assert!(matches!(
        range_stream(&filtered),
        Err(Error::StreamRevisionFilter)
    ));
}

#[test]
fn a_put_reports_the_first_of_its_mistakes() {
    let mut request = PutRequest {
        value: "v".into(),
        lease: 1,
        ignore_value: true,
        ignore_lease: true,
        ..Default::default()
    };
    assert!(matches!(put(&request), Err(Error::EmptyKey)));
    request.key = "k".into();
    assert!(matches!(put(&request), Err(Error::ValueProvided)));
    request.value = Bytes::new();
    assert!(matches!(put(&request), Err(Error::LeaseProvided)));
    request.lease = 0;
    assert!(put(&request).is_ok());
}

#[test]
fn nested_transactions_share_the_budget_of_operations() {
    let many = |count| vec![delete_op("k", ""); count];
    assert!(check(many(128)).is_ok());
    assert!(matches!(check(many(129)), Err(Error::TooManyOps)));
    let mut outer = many(27);
    outer.push(nested(many(100), many(100)));
    assert!(check(outer.clone()).is_ok());
    outer.push(delete_op("k", ""));
    assert!(matches!(check(outer), Err(Error::TooManyOps)));
    let compare = vec![
        Compare {
            key: "k".into(),
            ..Default::default()
        };
        129
    ];
    let request = TxnRequest {
        compare,
        ..Default::default()
    };
    assert!(matches!(
        txn(&request, &Limits::default()),
        Err(Error::TooManyOps)
    ));
}

#[test]
fn mistakes_of_operations_come_before_duplicates() {
    let empty_op = RequestOp { request: None };
    assert!(matches!(
        check(vec![put_op("a"), put_op("a"), empty_op]),
        Err(Error::KeyNotFound)
    ));
    assert!(matches!(
        check(vec![put_op("a"), put_op("a"), put_op("")]),
        Err(Error::EmptyKey)
    ));
    let request = TxnRequest {
        compare: vec![Compare::default()],
        ..Default::default()
    };
    assert!(matches!(
        txn(&request, &Limits::default()),
        Err(Error::EmptyKey)
    ));
}

#[test]
fn a_branch_may_not_change_a_key_twice() {
    assert_duplicate(vec![put_op("a"), put_op("a")]);
    assert_duplicate(vec![delete_op("a", ""), put_op("a")]);
    assert_duplicate(vec![put_op("b"), delete_op("a", "c")]);
    assert_duplicate(vec![put_op("a"), nested(vec![put_op("a")], vec![])]);
    assert_duplicate(vec![nested(vec![], vec![put_op("a")]), put_op("a")]);
    assert_duplicate(vec![
        nested(vec![put_op("a")], vec![]),
        nested(vec![], vec![put_op("a")]),
    ]);
    assert_duplicate(vec![nested(vec![delete_op("a", "c")], vec![]), put_op("b")]);
    assert_duplicate(vec![
        delete_op("a", "c"),
        nested(vec![nested(vec![put_op("b")], vec![])], vec![]),
    ]);
    assert!(check(vec![put_op("a"), put_op("b"), delete_op("c", "d")]).is_ok());
    assert!(check(vec![delete_op("a", "d"), delete_op("b", "c")]).is_ok());
    assert!(check(vec![put_op("b"), delete_op("c", "a")]).is_ok());
    let range_op = op(Request::RequestRange(RangeRequest {
        key: "a".into(),
        ..Default::default()
    }));
    assert!(check(vec![put_op("a"), range_op]).is_ok());
}

#[test]
fn branches_of_one_nested_transaction_may_share_keys() {
    assert!(check(vec![nested(vec![put_op("a")], vec![put_op("a")])]).is_ok());
    assert_duplicate(vec![
        put_op("a"),
        nested(vec![put_op("a")], vec![put_op("a")]),
    ]);
}

#[test]
fn of_two_nested_transactions_only_the_second_is_compared_with_the_deletes_of_the_first() {
    assert_duplicate(vec![
        nested(vec![delete_op("a", "c")], vec![]),
        nested(vec![put_op("b")], vec![]),
    ]);
    assert!(
        check(vec![
            nested(vec![put_op("b")], vec![]),
            nested(vec![delete_op("a", "c")], vec![])
        ])
        .is_ok()
    );
}

#[test]
fn a_delete_to_the_end_of_all_keys_is_not_seen_to_overlap() {
    assert!(check(vec![delete_op("a", "\0"), put_op("b")]).is_ok());
    assert!(check(vec![delete_op("a", "\0"), put_op("a")]).is_ok());
}
