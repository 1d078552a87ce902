"""What the admin API takes and answers: a file a resource, read by the server and the command line alike.

1. A view's fields are the JSON object's keys, in their order. `None` is `null`; a key that may be absent is `UNSET`.
2. A view holds no rule and comes from no library of the server, so that a command decodes answers without one.
3. A view ignores a key that it does not know: a newer server may answer more. A body (`New...`) refuses one.
"""
