"""
What real servers answered: the bytes of their bodies, by version and by what was asked.

One script asked all three servers, each a fresh cluster of one member with the same name and addresses, so what they
say is the same but for their generation's JSON, their version and what they choose by chance. The token is that of a
server that lived for seconds.
"""

from __future__ import annotations

#: Bodies with status 200: version, what was asked, body.
ANSWERS: dict[str, dict[str, bytes]] = {
    "3.4.23": {
        "range of nothing": (
            b'{"header":{"cluster_id":"8977748915840124624","member_id":"4803033076545396168",'
            b'"revision":"1","raft_term":"2"}}'
        ),
        "first put": (
            b'{"header":{"cluster_id":"8977748915840124624","member_id":"4803033076545396168",'
            b'"revision":"2","raft_term":"2"}}'
        ),
        "put of an empty value": (
            b'{"header":{"cluster_id":"8977748915840124624","member_id":"4803033076545396168",'
            b'"revision":"3","raft_term":"2"}}'
        ),
        "put with prev_kv": (
            b'{"header":{"cluster_id":"8977748915840124624","member_id":"4803033076545396168",'
            b'"revision":"4","raft_term":"2"},"prev_kv":{"key":"aw==","create_revision":"2",'
            b'"mod_revision":"2","version":"1","value":"dg=="}}'
        ),
        "range": (
            b'{"header":{"cluster_id":"8977748915840124624","member_id":"4803033076545396168",'
            b'"revision":"4","raft_term":"2"},"kvs":[{"key":"ZQ==","create_revision":"3",'
            b'"mod_revision":"3","version":"1"},{"key":"aw==","create_revision":"2","mod_revision":"4",'
            b'"version":"2","value":"AP/+"}],"count":"2"}'
        ),
        "range with a limit": (
            b'{"header":{"cluster_id":"8977748915840124624","member_id":"4803033076545396168",'
            b'"revision":"4","raft_term":"2"},"kvs":[{"key":"aw==","create_revision":"2",'
            b'"mod_revision":"4","version":"2","value":"AP/+"}],"more":true,"count":"2"}'
        ),
        "count": (
            b'{"header":{"cluster_id":"8977748915840124624","member_id":"4803033076545396168",'
            b'"revision":"4","raft_term":"2"},"count":"2"}'
        ),
        "txn that fails": (
            b'{"header":{"cluster_id":"8977748915840124624","member_id":"4803033076545396168",'
            b'"revision":"4","raft_term":"2"}}'
        ),
        "txn of everything": (
            b'{"header":{"cluster_id":"8977748915840124624","member_id":"4803033076545396168",'
            b'"revision":"5","raft_term":"2"},"succeeded":true,'
            b'"responses":[{"response_range":{"header":{"revision":"4"},"kvs":[{"key":"aw==",'
            b'"create_revision":"2","mod_revision":"4","version":"2","value":"AP/+"}],"count":"1"}},'
            b'{"response_put":{"header":{"revision":"5"}}},'
            b'{"response_delete_range":{"header":{"revision":"5"},"deleted":"1","prev_kvs":[{"key":"ZQ==",'
            b'"create_revision":"3","mod_revision":"3","version":"1"}]}},{"response_txn":{"header":{},'
            b'"succeeded":true,"responses":[{"response_range":{"header":{"revision":"5"}}}]}}]}'
        ),
        "delete of nothing": (
            b'{"header":{"cluster_id":"8977748915840124624","member_id":"4803033076545396168",'
            b'"revision":"5","raft_term":"2"}}'
        ),
        "delete": (
            b'{"header":{"cluster_id":"8977748915840124624","member_id":"4803033076545396168",'
            b'"revision":"6","raft_term":"2"},"deleted":"1"}'
        ),
        "compaction": (
            b'{"header":{"cluster_id":"8977748915840124624","member_id":"4803033076545396168",'
            b'"revision":"6","raft_term":"2"}}'
        ),
        "grant": (
            b'{"header":{"cluster_id":"8977748915840124624","member_id":"4803033076545396168",'
            b'"revision":"6","raft_term":"2"},"ID":"9223372036854775807","TTL":"100"}'
        ),
        "put with a lease": (
            b'{"header":{"cluster_id":"8977748915840124624","member_id":"4803033076545396168",'
            b'"revision":"7","raft_term":"2"}}'
        ),
        "range of a key with a lease": (
            b'{"header":{"cluster_id":"8977748915840124624","member_id":"4803033076545396168",'
            b'"revision":"7","raft_term":"2"},"kvs":[{"key":"bA==","create_revision":"7",'
            b'"mod_revision":"7","version":"1","lease":"9223372036854775807"}],"count":"1"}'
        ),
        "leases": (
            b'{"header":{"cluster_id":"8977748915840124624","member_id":"4803033076545396168",'
            b'"revision":"7","raft_term":"2"},"leases":[{"ID":"9223372036854775807"}]}'
        ),
        "time to live": (
            b'{"header":{"cluster_id":"8977748915840124624","member_id":"4803033076545396168",'
            b'"revision":"7","raft_term":"2"},"ID":"9223372036854775807","TTL":"99","grantedTTL":"100",'
            b'"keys":["bA=="]}'
        ),
        "time to live of no lease": (
            b'{"header":{"cluster_id":"8977748915840124624","member_id":"4803033076545396168",'
            b'"revision":"7","raft_term":"2"},"ID":"-9223372036854775808","TTL":"-1"}'
        ),
        "revoke": (
            b'{"header":{"cluster_id":"8977748915840124624","member_id":"4803033076545396168",'
            b'"revision":"8","raft_term":"2"}}'
        ),
        "members": (
            b'{"header":{"cluster_id":"8977748915840124624","member_id":"4803033076545396168",'
            b'"raft_term":"2"},"members":[{"ID":"4803033076545396168","name":"m1",'
            b'"peerURLs":["http://127.0.0.1:41751"],"clientURLs":["http://127.0.0.1:41750"]}]}'
        ),
        "member add": (
            b'{"header":{"cluster_id":"8977748915840124624","member_id":"4803033076545396168",'
            b'"raft_term":"2"},"member":{"ID":"10619822681297884741","peerURLs":["http://127.0.0.1:1"],'
            b'"isLearner":true},"members":[{"ID":"4803033076545396168","name":"m1",'
            b'"peerURLs":["http://127.0.0.1:41751"],"clientURLs":["http://127.0.0.1:41750"]},'
            b'{"ID":"10619822681297884741","peerURLs":["http://127.0.0.1:1"],"isLearner":true}]}'
        ),
        "alarms": b"{}",
        "alarm": b'{"alarms":[{"memberID":"18446744073709551615","alarm":"CORRUPT"}]}',
        "status": (
            b'{"header":{"cluster_id":"8977748915840124624","member_id":"4803033076545396168",'
            b'"revision":"8","raft_term":"2"},"version":"3.4.23","dbSize":"20480",'
            b'"leader":"4803033076545396168","raftIndex":"21","raftTerm":"2","raftAppliedIndex":"21",'
            b'"dbSizeInUse":"16384"}'
        ),
        "hash": (
            b'{"header":{"cluster_id":"8977748915840124624","member_id":"4803033076545396168",'
            b'"revision":"8","raft_term":"2"},"hash":4051076311}'
        ),
        "defragment": b"{}",
        "grant 2": (
            b'{"header":{"cluster_id":"8977748915840124624","member_id":"4803033076545396168",'
            b'"revision":"10","raft_term":"2"},"ID":"119","TTL":"100"}'
        ),
        "lock": (
            b'{"header":{"cluster_id":"8977748915840124624","member_id":"4803033076545396168",'
            b'"revision":"11","raft_term":"2"},"key":"bG8vNzc="}'
        ),
        "unlock": (
            b'{"header":{"cluster_id":"8977748915840124624","member_id":"4803033076545396168",'
            b'"revision":"12","raft_term":"2"}}'
        ),
        "campaign": (
            b'{"header":{"cluster_id":"8977748915840124624","member_id":"4803033076545396168",'
            b'"revision":"13","raft_term":"2"},"leader":{"name":"ZWw=","key":"ZWwvNzc=","rev":"13",'
            b'"lease":"119"}}'
        ),
        "leader": (
            b'{"header":{"cluster_id":"8977748915840124624","member_id":"4803033076545396168",'
            b'"revision":"13","raft_term":"2"},"kv":{"key":"ZWwvNzc=","create_revision":"13",'
            b'"mod_revision":"13","version":"1","value":"bWU=","lease":"119"}}'
        ),
        "role": (
            b'{"header":{"cluster_id":"8977748915840124624","member_id":"4803033076545396168",'
            b'"revision":"13","raft_term":"2"},"perm":[{"key":"YQ=="},{"permType":"READWRITE",'
            b'"key":"Yg==","range_end":"Yw=="}]}'
        ),
        "roles": (
            b'{"header":{"cluster_id":"8977748915840124624","member_id":"4803033076545396168",'
            b'"revision":"13","raft_term":"2"},"roles":["r","root"]}'
        ),
        "user": (
            b'{"header":{"cluster_id":"8977748915840124624","member_id":"4803033076545396168",'
            b'"revision":"13","raft_term":"2"},"roles":["root"]}'
        ),
        "users": (
            b'{"header":{"cluster_id":"8977748915840124624","member_id":"4803033076545396168",'
            b'"revision":"13","raft_term":"2"},"users":["root"]}'
        ),
        "authentication turned on": (
            b'{"header":{"cluster_id":"8977748915840124624","member_id":"4803033076545396168",'
            b'"revision":"13","raft_term":"2"}}'
        ),
        "authenticate": (
            b'{"header":{"cluster_id":"8977748915840124624","member_id":"4803033076545396168",'
            b'"revision":"13","raft_term":"2"},"token":"nUmSpvixnaXPPmIZ.40"}'
        ),
    },
    "3.5.1": {
        "range of nothing": (
            b'{"header":{"cluster_id":"8977748915840124624","member_id":"4803033076545396168",'
            b'"revision":"1","raft_term":"2"}}'
        ),
        "first put": (
            b'{"header":{"cluster_id":"8977748915840124624","member_id":"4803033076545396168",'
            b'"revision":"2","raft_term":"2"}}'
        ),
        "put of an empty value": (
            b'{"header":{"cluster_id":"8977748915840124624","member_id":"4803033076545396168",'
            b'"revision":"3","raft_term":"2"}}'
        ),
        "put with prev_kv": (
            b'{"header":{"cluster_id":"8977748915840124624","member_id":"4803033076545396168",'
            b'"revision":"4","raft_term":"2"},"prev_kv":{"key":"aw==","create_revision":"2",'
            b'"mod_revision":"2","version":"1","value":"dg=="}}'
        ),
        "range": (
            b'{"header":{"cluster_id":"8977748915840124624","member_id":"4803033076545396168",'
            b'"revision":"4","raft_term":"2"},"kvs":[{"key":"ZQ==","create_revision":"3",'
            b'"mod_revision":"3","version":"1"},{"key":"aw==","create_revision":"2","mod_revision":"4",'
            b'"version":"2","value":"AP/+"}],"count":"2"}'
        ),
        "range with a limit": (
            b'{"header":{"cluster_id":"8977748915840124624","member_id":"4803033076545396168",'
            b'"revision":"4","raft_term":"2"},"kvs":[{"key":"aw==","create_revision":"2",'
            b'"mod_revision":"4","version":"2","value":"AP/+"}],"more":true,"count":"2"}'
        ),
        "count": (
            b'{"header":{"cluster_id":"8977748915840124624","member_id":"4803033076545396168",'
            b'"revision":"4","raft_term":"2"},"count":"2"}'
        ),
        "txn that fails": (
            b'{"header":{"cluster_id":"8977748915840124624","member_id":"4803033076545396168",'
            b'"revision":"4","raft_term":"2"}}'
        ),
        "txn of everything": (
            b'{"header":{"cluster_id":"8977748915840124624","member_id":"4803033076545396168",'
            b'"revision":"5","raft_term":"2"},"succeeded":true,'
            b'"responses":[{"response_range":{"header":{"revision":"4"},"kvs":[{"key":"aw==",'
            b'"create_revision":"2","mod_revision":"4","version":"2","value":"AP/+"}],"count":"1"}},'
            b'{"response_put":{"header":{"revision":"5"}}},'
            b'{"response_delete_range":{"header":{"revision":"5"},"deleted":"1","prev_kvs":[{"key":"ZQ==",'
            b'"create_revision":"3","mod_revision":"3","version":"1"}]}},{"response_txn":{"header":{},'
            b'"succeeded":true,"responses":[{"response_range":{"header":{"revision":"5"}}}]}}]}'
        ),
        "delete of nothing": (
            b'{"header":{"cluster_id":"8977748915840124624","member_id":"4803033076545396168",'
            b'"revision":"5","raft_term":"2"}}'
        ),
        "delete": (
            b'{"header":{"cluster_id":"8977748915840124624","member_id":"4803033076545396168",'
            b'"revision":"6","raft_term":"2"},"deleted":"1"}'
        ),
        "compaction": (
            b'{"header":{"cluster_id":"8977748915840124624","member_id":"4803033076545396168",'
            b'"revision":"6","raft_term":"2"}}'
        ),
        "grant": (
            b'{"header":{"cluster_id":"8977748915840124624","member_id":"4803033076545396168",'
            b'"revision":"6","raft_term":"2"},"ID":"9223372036854775807","TTL":"100"}'
        ),
        "put with a lease": (
            b'{"header":{"cluster_id":"8977748915840124624","member_id":"4803033076545396168",'
            b'"revision":"7","raft_term":"2"}}'
        ),
        "range of a key with a lease": (
            b'{"header":{"cluster_id":"8977748915840124624","member_id":"4803033076545396168",'
            b'"revision":"7","raft_term":"2"},"kvs":[{"key":"bA==","create_revision":"7",'
            b'"mod_revision":"7","version":"1","lease":"9223372036854775807"}],"count":"1"}'
        ),
        "leases": (
            b'{"header":{"cluster_id":"8977748915840124624","member_id":"4803033076545396168",'
            b'"revision":"7","raft_term":"2"},"leases":[{"ID":"9223372036854775807"}]}'
        ),
        "time to live": (
            b'{"header":{"cluster_id":"8977748915840124624","member_id":"4803033076545396168",'
            b'"revision":"7","raft_term":"2"},"ID":"9223372036854775807","TTL":"99","grantedTTL":"100",'
            b'"keys":["bA=="]}'
        ),
        "time to live of no lease": (
            b'{"header":{"cluster_id":"8977748915840124624","member_id":"4803033076545396168",'
            b'"revision":"7","raft_term":"2"},"ID":"-9223372036854775808","TTL":"-1"}'
        ),
        "revoke": (
            b'{"header":{"cluster_id":"8977748915840124624","member_id":"4803033076545396168",'
            b'"revision":"8","raft_term":"2"}}'
        ),
        "members": (
            b'{"header":{"cluster_id":"8977748915840124624","member_id":"4803033076545396168",'
            b'"raft_term":"2"},"members":[{"ID":"4803033076545396168","name":"m1",'
            b'"peerURLs":["http://127.0.0.1:41751"],"clientURLs":["http://127.0.0.1:41750"]}]}'
        ),
        "member add": (
            b'{"header":{"cluster_id":"8977748915840124624","member_id":"4803033076545396168",'
            b'"raft_term":"2"},"member":{"ID":"9062282297689997007","peerURLs":["http://127.0.0.1:1"],'
            b'"isLearner":true},"members":[{"ID":"4803033076545396168","name":"m1",'
            b'"peerURLs":["http://127.0.0.1:41751"],"clientURLs":["http://127.0.0.1:41750"]},'
            b'{"ID":"9062282297689997007","peerURLs":["http://127.0.0.1:1"],"isLearner":true}]}'
        ),
        "alarms": (
            b'{"header":{"cluster_id":"8977748915840124624","member_id":"4803033076545396168",'
            b'"revision":"8","raft_term":"2"}}'
        ),
        "alarm": (
            b'{"header":{"cluster_id":"8977748915840124624","member_id":"4803033076545396168",'
            b'"revision":"8","raft_term":"2"},"alarms":[{"memberID":"18446744073709551615",'
            b'"alarm":"CORRUPT"}]}'
        ),
        "status": (
            b'{"header":{"cluster_id":"8977748915840124624","member_id":"4803033076545396168",'
            b'"revision":"8","raft_term":"2"},"version":"3.5.1","dbSize":"20480",'
            b'"leader":"4803033076545396168","raftIndex":"20","raftTerm":"2","raftAppliedIndex":"20",'
            b'"dbSizeInUse":"16384"}'
        ),
        "hash": (
            b'{"header":{"cluster_id":"8977748915840124624","member_id":"4803033076545396168",'
            b'"revision":"8","raft_term":"2"},"hash":1458548689}'
        ),
        "defragment": b"{}",
        "downgrade": (
            b'{"header":{"cluster_id":"8977748915840124624","member_id":"4803033076545396168",'
            b'"revision":"8","raft_term":"2"},"version":"3.5.0"}'
        ),
        "grant 2": (
            b'{"header":{"cluster_id":"8977748915840124624","member_id":"4803033076545396168",'
            b'"revision":"10","raft_term":"2"},"ID":"119","TTL":"100"}'
        ),
        "lock": (
            b'{"header":{"cluster_id":"8977748915840124624","member_id":"4803033076545396168",'
            b'"revision":"11","raft_term":"2"},"key":"bG8vNzc="}'
        ),
        "unlock": (
            b'{"header":{"cluster_id":"8977748915840124624","member_id":"4803033076545396168",'
            b'"revision":"12","raft_term":"2"}}'
        ),
        "campaign": (
            b'{"header":{"cluster_id":"8977748915840124624","member_id":"4803033076545396168",'
            b'"revision":"13","raft_term":"2"},"leader":{"name":"ZWw=","key":"ZWwvNzc=","rev":"13",'
            b'"lease":"119"}}'
        ),
        "leader": (
            b'{"header":{"cluster_id":"8977748915840124624","member_id":"4803033076545396168",'
            b'"revision":"13","raft_term":"2"},"kv":{"key":"ZWwvNzc=","create_revision":"13",'
            b'"mod_revision":"13","version":"1","value":"bWU=","lease":"119"}}'
        ),
        "role": (
            b'{"header":{"cluster_id":"8977748915840124624","member_id":"4803033076545396168",'
            b'"revision":"13","raft_term":"2"},"perm":[{"key":"YQ=="},{"permType":"READWRITE",'
            b'"key":"Yg==","range_end":"Yw=="}]}'
        ),
        "roles": (
            b'{"header":{"cluster_id":"8977748915840124624","member_id":"4803033076545396168",'
            b'"revision":"13","raft_term":"2"},"roles":["r","root"]}'
        ),
        "user": (
            b'{"header":{"cluster_id":"8977748915840124624","member_id":"4803033076545396168",'
            b'"revision":"13","raft_term":"2"},"roles":["root"]}'
        ),
        "users": (
            b'{"header":{"cluster_id":"8977748915840124624","member_id":"4803033076545396168",'
            b'"revision":"13","raft_term":"2"},"users":["root"]}'
        ),
        "authentication turned on": (
            b'{"header":{"cluster_id":"8977748915840124624","member_id":"4803033076545396168",'
            b'"revision":"13","raft_term":"2"}}'
        ),
        "authenticate": (
            b'{"header":{"cluster_id":"8977748915840124624","member_id":"4803033076545396168",'
            b'"revision":"13","raft_term":"2"},"token":"HNUzVIwAOUJoWwKS.39"}'
        ),
        "auth status": (
            b'{"header":{"cluster_id":"8977748915840124624","member_id":"4803033076545396168",'
            b'"revision":"13","raft_term":"2"},"enabled":true,"authRevision":"7"}'
        ),
    },
    "3.5.16": {
        "range of nothing": (
            b'{"header":{"cluster_id":"8977748915840124624", "member_id":"4803033076545396168",'
            b' "revision":"1", "raft_term":"2"}}'
        ),
        "first put": (
            b'{"header":{"cluster_id":"8977748915840124624", "member_id":"4803033076545396168",'
            b' "revision":"2", "raft_term":"2"}}'
        ),
        "put of an empty value": (
            b'{"header":{"cluster_id":"8977748915840124624", "member_id":"4803033076545396168",'
            b' "revision":"3", "raft_term":"2"}}'
        ),
        "put with prev_kv": (
            b'{"header":{"cluster_id":"8977748915840124624", "member_id":"4803033076545396168",'
            b' "revision":"4", "raft_term":"2"}, "prev_kv":{"key":"aw==", "create_revision":"2",'
            b' "mod_revision":"2", "version":"1", "value":"dg=="}}'
        ),
        "range": (
            b'{"header":{"cluster_id":"8977748915840124624", "member_id":"4803033076545396168",'
            b' "revision":"4", "raft_term":"2"}, "kvs":[{"key":"ZQ==", "create_revision":"3",'
            b' "mod_revision":"3", "version":"1"}, {"key":"aw==", "create_revision":"2",'
            b' "mod_revision":"4", "version":"2", "value":"AP/+"}], "count":"2"}'
        ),
        "range with a limit": (
            b'{"header":{"cluster_id":"8977748915840124624", "member_id":"4803033076545396168",'
            b' "revision":"4", "raft_term":"2"}, "kvs":[{"key":"aw==", "create_revision":"2",'
            b' "mod_revision":"4", "version":"2", "value":"AP/+"}], "more":true, "count":"2"}'
        ),
        "count": (
            b'{"header":{"cluster_id":"8977748915840124624", "member_id":"4803033076545396168",'
            b' "revision":"4", "raft_term":"2"}, "count":"2"}'
        ),
        "txn that fails": (
            b'{"header":{"cluster_id":"8977748915840124624", "member_id":"4803033076545396168",'
            b' "revision":"4", "raft_term":"2"}}'
        ),
        "txn of everything": (
            b'{"header":{"cluster_id":"8977748915840124624", "member_id":"4803033076545396168",'
            b' "revision":"5", "raft_term":"2"}, "succeeded":true,'
            b' "responses":[{"response_range":{"header":{"revision":"4"}, "kvs":[{"key":"aw==",'
            b' "create_revision":"2", "mod_revision":"4", "version":"2", "value":"AP/+"}], "count":"1"}},'
            b' {"response_put":{"header":{"revision":"5"}}},'
            b' {"response_delete_range":{"header":{"revision":"5"}, "deleted":"1",'
            b' "prev_kvs":[{"key":"ZQ==", "create_revision":"3", "mod_revision":"3", "version":"1"}]}},'
            b' {"response_txn":{"header":{}, "succeeded":true,'
            b' "responses":[{"response_range":{"header":{"revision":"5"}}}]}}]}'
        ),
        "delete of nothing": (
            b'{"header":{"cluster_id":"8977748915840124624", "member_id":"4803033076545396168",'
            b' "revision":"5", "raft_term":"2"}}'
        ),
        "delete": (
            b'{"header":{"cluster_id":"8977748915840124624", "member_id":"4803033076545396168",'
            b' "revision":"6", "raft_term":"2"}, "deleted":"1"}'
        ),
        "compaction": (
            b'{"header":{"cluster_id":"8977748915840124624", "member_id":"4803033076545396168",'
            b' "revision":"6", "raft_term":"2"}}'
        ),
        "grant": (
            b'{"header":{"cluster_id":"8977748915840124624", "member_id":"4803033076545396168",'
            b' "revision":"6", "raft_term":"2"}, "ID":"9223372036854775807", "TTL":"100"}'
        ),
        "put with a lease": (
            b'{"header":{"cluster_id":"8977748915840124624", "member_id":"4803033076545396168",'
            b' "revision":"7", "raft_term":"2"}}'
        ),
        "range of a key with a lease": (
            b'{"header":{"cluster_id":"8977748915840124624", "member_id":"4803033076545396168",'
            b' "revision":"7", "raft_term":"2"}, "kvs":[{"key":"bA==", "create_revision":"7",'
            b' "mod_revision":"7", "version":"1", "lease":"9223372036854775807"}], "count":"1"}'
        ),
        "leases": (
            b'{"header":{"cluster_id":"8977748915840124624", "member_id":"4803033076545396168",'
            b' "revision":"7", "raft_term":"2"}, "leases":[{"ID":"9223372036854775807"}]}'
        ),
        "time to live": (
            b'{"header":{"cluster_id":"8977748915840124624", "member_id":"4803033076545396168",'
            b' "revision":"7", "raft_term":"2"}, "ID":"9223372036854775807", "TTL":"99",'
            b' "grantedTTL":"100", "keys":["bA=="]}'
        ),
        "time to live of no lease": (
            b'{"header":{"cluster_id":"8977748915840124624", "member_id":"4803033076545396168",'
            b' "revision":"7", "raft_term":"2"}, "ID":"-9223372036854775808", "TTL":"-1"}'
        ),
        "revoke": (
            b'{"header":{"cluster_id":"8977748915840124624", "member_id":"4803033076545396168",'
            b' "revision":"8", "raft_term":"2"}}'
        ),
        "members": (
            b'{"header":{"cluster_id":"8977748915840124624", "member_id":"4803033076545396168",'
            b' "raft_term":"2"}, "members":[{"ID":"4803033076545396168", "name":"m1",'
            b' "peerURLs":["http://127.0.0.1:41751"], "clientURLs":["http://127.0.0.1:41750"]}]}'
        ),
        "member add": (
            b'{"header":{"cluster_id":"8977748915840124624", "member_id":"4803033076545396168",'
            b' "raft_term":"2"}, "member":{"ID":"5606002918879752540", "peerURLs":["http://127.0.0.1:1"],'
            b' "isLearner":true}, "members":[{"ID":"4803033076545396168", "name":"m1",'
            b' "peerURLs":["http://127.0.0.1:41751"], "clientURLs":["http://127.0.0.1:41750"]},'
            b' {"ID":"5606002918879752540", "peerURLs":["http://127.0.0.1:1"], "isLearner":true}]}'
        ),
        "alarms": (
            b'{"header":{"cluster_id":"8977748915840124624", "member_id":"4803033076545396168",'
            b' "revision":"8", "raft_term":"2"}}'
        ),
        "alarm": (
            b'{"header":{"cluster_id":"8977748915840124624", "member_id":"4803033076545396168",'
            b' "revision":"8", "raft_term":"2"}, "alarms":[{"memberID":"18446744073709551615",'
            b' "alarm":"CORRUPT"}]}'
        ),
        "status": (
            b'{"header":{"cluster_id":"8977748915840124624", "member_id":"4803033076545396168",'
            b' "revision":"8", "raft_term":"2"}, "version":"3.5.16", "dbSize":"20480",'
            b' "leader":"4803033076545396168", "raftIndex":"20", "raftTerm":"2", "raftAppliedIndex":"20",'
            b' "dbSizeInUse":"16384"}'
        ),
        "hash": (
            b'{"header":{"cluster_id":"8977748915840124624", "member_id":"4803033076545396168",'
            b' "revision":"8", "raft_term":"2"}, "hash":3203938259}'
        ),
        "hash of the keys": (
            b'{"header":{"cluster_id":"8977748915840124624", "member_id":"4803033076545396168",'
            b' "revision":"8", "raft_term":"2"}, "hash":425821657, "compact_revision":"3"}'
        ),
        "defragment": b"{}",
        "downgrade": (
            b'{"header":{"cluster_id":"8977748915840124624", "member_id":"4803033076545396168",'
            b' "revision":"8", "raft_term":"2"}, "version":"3.5.0"}'
        ),
        "grant 2": (
            b'{"header":{"cluster_id":"8977748915840124624", "member_id":"4803033076545396168",'
            b' "revision":"10", "raft_term":"2"}, "ID":"119", "TTL":"100"}'
        ),
        "lock": (
            b'{"header":{"cluster_id":"8977748915840124624", "member_id":"4803033076545396168",'
            b' "revision":"11", "raft_term":"2"}, "key":"bG8vNzc="}'
        ),
        "unlock": (
            b'{"header":{"cluster_id":"8977748915840124624", "member_id":"4803033076545396168",'
            b' "revision":"12", "raft_term":"2"}}'
        ),
        "campaign": (
            b'{"header":{"cluster_id":"8977748915840124624", "member_id":"4803033076545396168",'
            b' "revision":"13", "raft_term":"2"}, "leader":{"name":"ZWw=", "key":"ZWwvNzc=", "rev":"13",'
            b' "lease":"119"}}'
        ),
        "leader": (
            b'{"header":{"cluster_id":"8977748915840124624", "member_id":"4803033076545396168",'
            b' "revision":"13", "raft_term":"2"}, "kv":{"key":"ZWwvNzc=", "create_revision":"13",'
            b' "mod_revision":"13", "version":"1", "value":"bWU=", "lease":"119"}}'
        ),
        "role": (
            b'{"header":{"cluster_id":"8977748915840124624", "member_id":"4803033076545396168",'
            b' "revision":"13", "raft_term":"2"}, "perm":[{"key":"YQ=="}, {"permType":"READWRITE",'
            b' "key":"Yg==", "range_end":"Yw=="}]}'
        ),
        "roles": (
            b'{"header":{"cluster_id":"8977748915840124624", "member_id":"4803033076545396168",'
            b' "revision":"13", "raft_term":"2"}, "roles":["r", "root"]}'
        ),
        "user": (
            b'{"header":{"cluster_id":"8977748915840124624", "member_id":"4803033076545396168",'
            b' "revision":"13", "raft_term":"2"}, "roles":["root"]}'
        ),
        "users": (
            b'{"header":{"cluster_id":"8977748915840124624", "member_id":"4803033076545396168",'
            b' "revision":"13", "raft_term":"2"}, "users":["root"]}'
        ),
        "authentication turned on": (
            b'{"header":{"cluster_id":"8977748915840124624", "member_id":"4803033076545396168",'
            b' "revision":"13", "raft_term":"2"}}'
        ),
        "authenticate": (
            b'{"header":{"cluster_id":"8977748915840124624", "member_id":"4803033076545396168",'
            b' "revision":"13", "raft_term":"2"}, "token":"MpfBKsqRycvjbYdf.38"}'
        ),
        "auth status": (
            b'{"header":{"cluster_id":"8977748915840124624", "member_id":"4803033076545396168",'
            b' "revision":"13", "raft_term":"2"}, "enabled":true, "authRevision":"7"}'
        ),
    },
}

#: Lines of streams as they arrived, with their ends.
FRAMES: dict[str, dict[str, tuple[bytes, ...]]] = {
    "3.4.23": {
        "keepalive": (
            (
                b'{"result":{"header":{"cluster_id":"8977748915840124624",'
                b'"member_id":"4803033076545396168","revision":"7","raft_term":"2"},'
                b'"ID":"9223372036854775807","TTL":"100"}}\n'
            ),
            (
                b'{"result":{"header":{"cluster_id":"8977748915840124624",'
                b'"member_id":"4803033076545396168","revision":"7","raft_term":"2"},"ID":"5"}}\n'
            ),
        ),
        "watch": (
            (
                b'{"result":{"header":{"cluster_id":"8977748915840124624",'
                b'"member_id":"4803033076545396168","revision":"8","raft_term":"2"},"created":true}}\n'
            ),
            (
                b'{"result":{"header":{"cluster_id":"8977748915840124624",'
                b'"member_id":"4803033076545396168","revision":"9","raft_term":"2"},'
                b'"events":[{"kv":{"key":"dw==","create_revision":"9","mod_revision":"9",'
                b'"version":"1"}}]}}\n'
            ),
            (
                b'{"result":{"header":{"cluster_id":"8977748915840124624",'
                b'"member_id":"4803033076545396168","revision":"10","raft_term":"2"},'
                b'"events":[{"type":"DELETE","kv":{"key":"dw==","mod_revision":"10"},'
                b'"prev_kv":{"key":"dw==","create_revision":"9","mod_revision":"9","version":"1"}}]}}\n'
            ),
        ),
        "watch from a compacted revision": (
            (
                b'{"result":{"header":{"cluster_id":"8977748915840124624",'
                b'"member_id":"4803033076545396168","revision":"10","raft_term":"2"},"created":true}}\n'
            ),
            (
                b'{"result":{"header":{"cluster_id":"8977748915840124624",'
                b'"member_id":"4803033076545396168","raft_term":"2"},"canceled":true,'
                b'"compact_revision":"3"}}\n'
            ),
        ),
        "progress and cancel": (
            (
                b'{"result":{"header":{"cluster_id":"8977748915840124624",'
                b'"member_id":"4803033076545396168","revision":"10","raft_term":"2"},"watch_id":"7",'
                b'"created":true}}\n'
            ),
            (
                b'{"result":{"header":{"cluster_id":"8977748915840124624",'
                b'"member_id":"4803033076545396168","revision":"10","raft_term":"2"},"watch_id":"-1"}}\n'
            ),
            (
                b'{"result":{"header":{"cluster_id":"8977748915840124624",'
                b'"member_id":"4803033076545396168","revision":"10","raft_term":"2"},"watch_id":"7",'
                b'"canceled":true}}\n'
            ),
        ),
        "observe": (
            (
                b'{"result":{"header":{"cluster_id":"8977748915840124624",'
                b'"member_id":"4803033076545396168","revision":"13","raft_term":"2"},'
                b'"kv":{"key":"ZWwvNzc=","create_revision":"13","mod_revision":"13","version":"1",'
                b'"value":"bWU=","lease":"119"}}}\n'
            ),
        ),
        "watch without a token": (
            (
                b'{"result":{"header":{"cluster_id":"8977748915840124624",'
                b'"member_id":"4803033076545396168","revision":"13","raft_term":"2"},"watch_id":"-1",'
                b'"created":true,"canceled":true,'
                b'"cancel_reason":"rpc error: code = InvalidArgument desc = etcdserver: user name is empty"}}\n'
            ),
        ),
        "server that is stopped": (
            (
                b'{"result":{"header":{"cluster_id":"8977748915840124624",'
                b'"member_id":"4803033076545396168","revision":"13","raft_term":"2"},"created":true}}\n'
            ),
            (
                b'{"error":{"grpc_code":14,"http_code":503,"message":"transport is closing",'
                b'"http_status":"Service Unavailable"}}'
            ),
        ),
    },
    "3.5.1": {
        "keepalive": (
            (
                b'{"result":{"header":{"cluster_id":"8977748915840124624",'
                b'"member_id":"4803033076545396168","revision":"7","raft_term":"2"},'
                b'"ID":"9223372036854775807","TTL":"100"}}\n'
            ),
            (
                b'{"result":{"header":{"cluster_id":"8977748915840124624",'
                b'"member_id":"4803033076545396168","revision":"7","raft_term":"2"},"ID":"5"}}\n'
            ),
        ),
        "watch": (
            (
                b'{"result":{"header":{"cluster_id":"8977748915840124624",'
                b'"member_id":"4803033076545396168","revision":"8","raft_term":"2"},"created":true}}\n'
            ),
            (
                b'{"result":{"header":{"cluster_id":"8977748915840124624",'
                b'"member_id":"4803033076545396168","revision":"9","raft_term":"2"},'
                b'"events":[{"kv":{"key":"dw==","create_revision":"9","mod_revision":"9",'
                b'"version":"1"}}]}}\n'
            ),
            (
                b'{"result":{"header":{"cluster_id":"8977748915840124624",'
                b'"member_id":"4803033076545396168","revision":"10","raft_term":"2"},'
                b'"events":[{"type":"DELETE","kv":{"key":"dw==","mod_revision":"10"},'
                b'"prev_kv":{"key":"dw==","create_revision":"9","mod_revision":"9","version":"1"}}]}}\n'
            ),
        ),
        "watch from a compacted revision": (
            (
                b'{"result":{"header":{"cluster_id":"8977748915840124624",'
                b'"member_id":"4803033076545396168","revision":"10","raft_term":"2"},"created":true}}\n'
            ),
            (
                b'{"result":{"header":{"cluster_id":"8977748915840124624",'
                b'"member_id":"4803033076545396168","raft_term":"2"},"canceled":true,'
                b'"compact_revision":"3"}}\n'
            ),
        ),
        "progress and cancel": (
            (
                b'{"result":{"header":{"cluster_id":"8977748915840124624",'
                b'"member_id":"4803033076545396168","revision":"10","raft_term":"2"},"watch_id":"7",'
                b'"created":true}}\n'
            ),
            (
                b'{"result":{"header":{"cluster_id":"8977748915840124624",'
                b'"member_id":"4803033076545396168","revision":"10","raft_term":"2"},"watch_id":"-1"}}\n'
            ),
            (
                b'{"result":{"header":{"cluster_id":"8977748915840124624",'
                b'"member_id":"4803033076545396168","revision":"10","raft_term":"2"},"watch_id":"7",'
                b'"canceled":true}}\n'
            ),
        ),
        "observe": (
            (
                b'{"result":{"header":{"cluster_id":"8977748915840124624",'
                b'"member_id":"4803033076545396168","revision":"13","raft_term":"2"},'
                b'"kv":{"key":"ZWwvNzc=","create_revision":"13","mod_revision":"13","version":"1",'
                b'"value":"bWU=","lease":"119"}}}\n'
            ),
        ),
        "watch without a token": (
            (
                b'{"result":{"header":{"cluster_id":"8977748915840124624",'
                b'"member_id":"4803033076545396168","revision":"13","raft_term":"2"},"created":true,'
                b'"canceled":true,'
                b'"cancel_reason":"rpc error: code = PermissionDenied desc = etcdserver: permission denied"}}\n'
            ),
        ),
        "server that is stopped": (
            (
                b'{"result":{"header":{"cluster_id":"8977748915840124624",'
                b'"member_id":"4803033076545396168","revision":"13","raft_term":"2"},"created":true}}\n'
            ),
            (
                b'{"error":{"grpc_code":14,"http_code":503,"message":"error reading from server: EOF",'
                b'"http_status":"Service Unavailable"}}'
            ),
        ),
    },
    "3.5.16": {
        "keepalive": (
            (
                b'{"result":{"header":{"cluster_id":"8977748915840124624",'
                b'"member_id":"4803033076545396168","revision":"7","raft_term":"2"},'
                b'"ID":"9223372036854775807","TTL":"100"}}\n'
            ),
            (
                b'{"result":{"header":{"cluster_id":"8977748915840124624",'
                b'"member_id":"4803033076545396168","revision":"7","raft_term":"2"},"ID":"5"}}\n'
            ),
        ),
        "watch": (
            (
                b'{"result":{"header":{"cluster_id":"8977748915840124624",'
                b'"member_id":"4803033076545396168","revision":"8","raft_term":"2"},"created":true}}\n'
            ),
            (
                b'{"result":{"header":{"cluster_id":"8977748915840124624",'
                b'"member_id":"4803033076545396168","revision":"9","raft_term":"2"},'
                b'"events":[{"kv":{"key":"dw==","create_revision":"9","mod_revision":"9",'
                b'"version":"1"}}]}}\n'
            ),
            (
                b'{"result":{"header":{"cluster_id":"8977748915840124624",'
                b'"member_id":"4803033076545396168","revision":"10","raft_term":"2"},'
                b'"events":[{"type":"DELETE","kv":{"key":"dw==","mod_revision":"10"},'
                b'"prev_kv":{"key":"dw==","create_revision":"9","mod_revision":"9","version":"1"}}]}}\n'
            ),
        ),
        "watch from a compacted revision": (
            (
                b'{"result":{"header":{"cluster_id":"8977748915840124624",'
                b'"member_id":"4803033076545396168","revision":"10","raft_term":"2"},"created":true}}\n'
            ),
            (
                b'{"result":{"header":{"cluster_id":"8977748915840124624",'
                b'"member_id":"4803033076545396168","raft_term":"2"},"canceled":true,'
                b'"compact_revision":"3"}}\n'
            ),
        ),
        "progress and cancel": (
            (
                b'{"result":{"header":{"cluster_id":"8977748915840124624",'
                b'"member_id":"4803033076545396168","revision":"10","raft_term":"2"},"watch_id":"-1"}}\n'
            ),
            (
                b'{"result":{"header":{"cluster_id":"8977748915840124624",'
                b'"member_id":"4803033076545396168","revision":"10","raft_term":"2"},"watch_id":"7",'
                b'"created":true}}\n'
            ),
            (
                b'{"result":{"header":{"cluster_id":"8977748915840124624",'
                b'"member_id":"4803033076545396168","revision":"10","raft_term":"2"},"watch_id":"7",'
                b'"canceled":true}}\n'
            ),
        ),
        "observe": (
            (
                b'{"result":{"header":{"cluster_id":"8977748915840124624",'
                b'"member_id":"4803033076545396168","revision":"13","raft_term":"2"},'
                b'"kv":{"key":"ZWwvNzc=","create_revision":"13","mod_revision":"13","version":"1",'
                b'"value":"bWU=","lease":"119"}}}\n'
            ),
        ),
        "watch without a token": (
            (
                b'{"result":{"header":{"cluster_id":"8977748915840124624",'
                b'"member_id":"4803033076545396168","revision":"13","raft_term":"2"},"watch_id":"-1",'
                b'"created":true,"canceled":true,'
                b'"cancel_reason":"rpc error: code = InvalidArgument desc = etcdserver: user name is empty"}}\n'
            ),
        ),
        "server that is stopped": (
            (
                b'{"result":{"header":{"cluster_id":"8977748915840124624",'
                b'"member_id":"4803033076545396168","revision":"13","raft_term":"2"},"created":true}}\n'
            ),
            b'{"error":{"code":14,"message":"error reading from server: EOF"}}\n',
        ),
    },
}

#: Errors: version, what was asked, HTTP status and body.
ERRORS: dict[str, dict[str, tuple[int, bytes]]] = {
    "3.4.23": {
        "promotion of a member that is not in sync": (
            412,
            (
                b'{"error":"etcdserver: can only promote a learner member which is in sync with leader",'
                b'"message":"etcdserver: can only promote a learner member which is in sync with leader",'
                b'"code":9}'
            ),
        ),
        "hash of the keys": (404, b"Not Found\n"),
        "downgrade": (404, b"Not Found\n"),
        "unknown path": (404, b"Not Found\n"),
        "empty key": (
            400,
            (b'{"error":"etcdserver: key is not provided","message":"etcdserver: key is not provided","code":3}'),
        ),
        "compacted": (
            400,
            (
                b'{"error":"etcdserver: mvcc: required revision has been compacted",'
                b'"message":"etcdserver: mvcc: required revision has been compacted","code":11}'
            ),
        ),
        "lease not found": (
            404,
            (
                b'{"error":"etcdserver: requested lease not found",'
                b'"message":"etcdserver: requested lease not found","code":5}'
            ),
        ),
        "bad leader transferee": (
            412,
            (b'{"error":"etcdserver: bad leader transferee","message":"etcdserver: bad leader transferee","code":9}'),
        ),
        "no leader of an election": (500, b'{"error":"election: no leader","message":"election: no leader","code":2}'),
        "wrong password": (
            400,
            (
                b'{"error":"etcdserver: authentication failed, invalid user ID or password",'
                b'"message":"etcdserver: authentication failed, invalid user ID or password","code":3}'
            ),
        ),
        "auth status": (404, b"Not Found\n"),
        "no token": (
            400,
            (b'{"error":"etcdserver: user name is empty","message":"etcdserver: user name is empty","code":3}'),
        ),
        "token that is unknown": (
            401,
            (b'{"error":"etcdserver: invalid auth token","message":"etcdserver: invalid auth token","code":16}'),
        ),
        "stream without a token": (
            500,
            (
                b'{"error":{"grpc_code":2,"http_code":500,"message":"auth: user name is empty",'
                b'"http_status":"Internal Server Error"}}'
            ),
        ),
    },
    "3.5.1": {
        "promotion of a member that is not in sync": (
            400,
            (
                b'{"error":"etcdserver: can only promote a learner member which is in sync with leader",'
                b'"code":9,'
                b'"message":"etcdserver: can only promote a learner member which is in sync with leader"}'
            ),
        ),
        "hash of the keys": (404, b"Not Found\n"),
        "unknown path": (404, b"Not Found\n"),
        "empty key": (
            400,
            (b'{"error":"etcdserver: key is not provided","code":3,"message":"etcdserver: key is not provided"}'),
        ),
        "compacted": (
            400,
            (
                b'{"error":"etcdserver: mvcc: required revision has been compacted","code":11,'
                b'"message":"etcdserver: mvcc: required revision has been compacted"}'
            ),
        ),
        "lease not found": (
            404,
            (
                b'{"error":"etcdserver: requested lease not found","code":5,'
                b'"message":"etcdserver: requested lease not found"}'
            ),
        ),
        "bad leader transferee": (
            400,
            (b'{"error":"etcdserver: bad leader transferee","code":9,"message":"etcdserver: bad leader transferee"}'),
        ),
        "no leader of an election": (500, b'{"error":"election: no leader","code":2,"message":"election: no leader"}'),
        "wrong password": (
            400,
            (
                b'{"error":"etcdserver: authentication failed, invalid user ID or password","code":3,'
                b'"message":"etcdserver: authentication failed, invalid user ID or password"}'
            ),
        ),
        "no token": (
            400,
            (b'{"error":"etcdserver: user name is empty","code":3,"message":"etcdserver: user name is empty"}'),
        ),
        "token that is unknown": (
            401,
            (b'{"error":"etcdserver: invalid auth token","code":16,"message":"etcdserver: invalid auth token"}'),
        ),
        "stream without a token": (
            500,
            (
                b'{"error":{"grpc_code":2,"http_code":500,"message":"auth: user name is empty",'
                b'"http_status":"Internal Server Error"}}'
            ),
        ),
    },
    "3.5.16": {
        "promotion of a member that is not in sync": (
            400,
            (b'{"code":9, "message":"etcdserver: can only promote a learner member which is in sync with leader"}'),
        ),
        "unknown path": (404, b'{"code":5, "message":"Not Found"}'),
        "empty key": (400, b'{"code":3, "message":"etcdserver: key is not provided"}'),
        "compacted": (400, b'{"code":11, "message":"etcdserver: mvcc: required revision has been compacted"}'),
        "lease not found": (404, b'{"code":5, "message":"etcdserver: requested lease not found"}'),
        "bad leader transferee": (400, b'{"code":9, "message":"etcdserver: bad leader transferee"}'),
        "no leader of an election": (500, b'{"code":2, "message":"election: no leader"}'),
        "wrong password": (
            400,
            b'{"code":3, "message":"etcdserver: authentication failed, invalid user ID or password"}',
        ),
        "no token": (400, b'{"code":3, "message":"etcdserver: user name is empty"}'),
        "token that is unknown": (401, b'{"code":16, "message":"etcdserver: invalid auth token"}'),
        "stream without a token": (500, b'{"error":{"code":2,"message":"auth: user name is empty"}}\n'),
    },
}
