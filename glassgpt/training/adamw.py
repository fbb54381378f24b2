"""torch's AdamW, without the import of torch's compiler."""

from __future__ import annotations

import inspect

import torch


class AdamW(torch.optim.AdamW):
    """`torch.optim.AdamW` with the same results and the same state, for steps that are not compiled.

    torch wraps these five methods to hide them from its compiler. Each wrapper imports the compiler first, which takes
    more than a second at the start of every run. `inspect.unwrap` returns the method inside the wrapper. If a later
    torch has no wrapper, it returns the method as it is.
    """

    add_param_group = inspect.unwrap(torch.optim.AdamW.add_param_group)
    zero_grad = inspect.unwrap(torch.optim.AdamW.zero_grad)
    state_dict = inspect.unwrap(torch.optim.AdamW.state_dict)
    load_state_dict = inspect.unwrap(torch.optim.AdamW.load_state_dict)
    step = torch.no_grad()(inspect.unwrap(torch.optim.AdamW.step))
