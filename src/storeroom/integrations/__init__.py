"""The connections of Storeroom to frameworks: the only package that imports one."""
